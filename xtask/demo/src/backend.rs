//! A backend that says who it is and what it sees of the client: its own TLS, the PROXY header where one came.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use mc_core::proxy_protocol::{self, Progress};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a page tells.
struct Seen {
    backend: &'static str,
    /// What the client asked for.
    name: String,
    /// The true client, by the PROXY header.
    client: Option<SocketAddr>,
    /// Who connected.
    peer: SocketAddr,
}

/// Serves until the process ends, on a port that the kernel chooses.
///
/// # Errors
/// There is no port left.
pub(crate) async fn start(backend: &'static str, tls: Arc<ServerConfig>) -> Result<SocketAddr> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen for the demo's backend")?;
    let address = listener.local_addr().context("a bound socket has an address")?;
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        loop {
            // An error is one client's that has gone.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let acceptor = acceptor.clone();
            // A connection that fails is its client's to notice.
            tokio::spawn(async move { serve(backend, stream, peer, acceptor).await.ok() });
        }
    });
    Ok(address)
}

async fn serve(
    backend: &'static str,
    mut stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
) -> Result<()> {
    let client = read_header(&mut stream).await?;
    let mut stream = acceptor.accept(stream).await?;
    let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
    let seen = Seen { backend, name, client, peer };
    while let Some(request) = read_request(&mut stream).await? {
        stream.write_all(seen.answer(&request).as_bytes()).await?;
    }
    // The client has finished. Nothing more is said: it would be answered with a reset.
    Ok(())
}

/// The client of the PROXY header, if there is one. Takes the header and nothing more.
async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>> {
    let mut bytes = vec![0; 4096];
    loop {
        let seen = stream.peek(&mut bytes).await?;
        ensure!(seen > 0, "closed before a byte");
        match proxy_protocol::parse(&bytes[..seen])? {
            Progress::NotProxy => return Ok(None),
            Progress::Done { header, len } => {
                stream.read_exact(&mut bytes[..len]).await?;
                return Ok(header.addresses.map(|addresses| addresses.source));
            }
            // MC-Proxy writes a header at once: the rest is on its way.
            Progress::NeedMore { .. } => tokio::task::yield_now().await,
        }
    }
}

/// Reads a request's head; `None` where the client has finished.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> Result<Option<String>> {
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
        if head.ends_with(b"\r\n\r\n") {
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if head.len() > 16 * 1024 {
            bail!("the request is too large");
        }
    }
}

impl Seen {
    fn answer(&self, request: &str) -> String {
        let wants_html = request.lines().any(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with("accept:") && line.contains("text/html")
        });
        let (kind, body) = if wants_html {
            ("text/html; charset=utf-8", self.html())
        } else {
            ("application/json", self.json())
        };
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn json(&self) -> String {
        let client = self.client.map(|client| client.to_string());
        let page = serde_json::json!({
            "backend": self.backend,
            "name": self.name,
            "client": client,
            "peer": self.peer.to_string(),
        });
        format!("{page:#}\n")
    }

    fn html(&self) -> String {
        let client = self.client.map_or("not said".to_owned(), |client| client.to_string());
        format!(
            "<!doctype html><html lang=\"en\"><title>MC-Proxy demo</title><h1>Backend {}</h1><ul><li>asked for as {}\
             <li>client, by the PROXY header: {client}<li>connection from: {}</ul></html>\n",
            self.backend, self.name, self.peer
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_who_answers_and_who_asked() {
        let seen = Seen {
            backend: "first",
            name: "demo.localhost".into(),
            client: Some(SocketAddr::from(([192, 0, 2, 1], 4711))),
            peer: SocketAddr::from(([127, 0, 0, 1], 1234)),
        };
        let check = |request: &str, expect: &[&str]| {
            let answer = seen.answer(request);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert!(expect.iter().all(|part| answer.contains(part)), "{answer}");
        };
        let parts = ["first", "demo.localhost", "192.0.2.1:4711", "127.0.0.1:1234"];
        check("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", &[&parts[..], &["application/json"]].concat());
        check("GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n", &[&parts[..], &["text/html", "<h1>"]].concat());
    }

    #[tokio::test]
    async fn a_header_is_taken_and_what_follows_left() {
        let check = async |sent: &[u8], client: Option<&str>, rest: &[u8]| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let mut writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            writer.write_all(sent).await.unwrap();
            drop(writer);
            let (mut stream, _) = listener.accept().await.unwrap();
            let found = read_header(&mut stream).await.unwrap();
            assert_eq!(found, client.map(|client| client.parse().unwrap()));
            let mut left = Vec::new();
            stream.read_to_end(&mut left).await.unwrap();
            assert_eq!(left, rest);
        };
        check(b"\x16\x03\x01", None, b"\x16\x03\x01").await;
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n\x16", Some("192.0.2.1:4711"), b"\x16").await;
    }
}
