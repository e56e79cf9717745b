//! A backend of plain HTTP/1.1, as most are: a page that shows what MC-Proxy told it about the client.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Fields that MC-Proxy sets.
const SHOWN: [&str; 6] =
    ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id"];

/// Serves until the process ends, on a port that the kernel chooses.
///
/// # Errors
/// There is no port left.
pub(crate) async fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen for the demo's page")?;
    let address = listener.local_addr().context("a bound socket has an address")?;
    tokio::spawn(async move {
        loop {
            // An error is one client's that has gone.
            let Ok((stream, _)) = listener.accept().await else { continue };
            // A connection that fails is its client's to notice.
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            if bytes.len() > 64 * 1024 {
                bail!("the request is too large");
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        stream.write_all(page(&head).as_bytes()).await?;
    }
}

fn page(head: &str) -> String {
    let mut lines = head.lines();
    let request = lines.next().unwrap_or_default();
    let mut rows = String::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if SHOWN.contains(&name.to_ascii_lowercase().as_str()) {
            rows += &format!("<tr><th>{}<td>{}\n", escape(name), escape(value));
        }
    }
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>MC-Proxy demo</title>\n\
         <style>body {{ font: 16px system-ui; margin: 3em auto; max-width: 44em }} \
         th {{ text-align: left; padding-right: 2em; font-weight: 500 }}</style>\n\
         <h1>MC-Proxy terminates TLS for this page</h1>\n<p>Its backend speaks plain HTTP, and was told:\n\
         <table>\n<tr><th>Request<td>{}\n{rows}</table>\n</html>\n",
        escape(request)
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a client said, as text in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn a_page_shows_what_the_backend_was_told_and_nothing_runs_in_it() {
        let page = page(
            "GET /<script> HTTP/1.1\r\nHost: page.localhost\r\nCookie: secret\r\nX-Forwarded-For: 192.0.2.1",
        );
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains("192.0.2.1") && body.contains("page.localhost"), "{body}");
        assert!(!body.contains("<script>") && !body.contains("secret"), "{body}");
    }
}
