//! Requests by `h2load` (Debian: nghttp2-client), whose report is read and believed only where every answer counted.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::Outcome;
use super::https::{HOST, KIB};
use crate::clock::now_ns;

/// Which HTTP, over how many connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Version {
    /// HTTP/1.1, 32 connections.
    Http1,
    /// HTTP/2, 8 connections of 16 streams.
    Http2,
}

/// Makes `count` requests for the small file.
///
/// # Errors
/// h2load cannot be run, or says something that is not understood; requests that fail are in the outcome.
pub(crate) fn run(target: SocketAddr, version: Version, count: u64) -> anyhow::Result<Outcome> {
    let mut command = Command::new("h2load");
    match version {
        Version::Http1 => command.args(["--h1", "--clients=32"]),
        Version::Http2 => command.args(["--clients=8", "--max-concurrent-streams=16"]),
    };
    command.arg(format!("--connect-to={target}")).arg(format!("https://{HOST}/1k"));
    finish(command, count, KIB)
}

/// Requests with a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post<'a> {
    /// The server.
    pub(crate) target: SocketAddr,
    /// What it is asked for.
    pub(crate) url: &'a str,
    /// Headers, as they are written.
    pub(crate) headers: &'a [&'a str],
    /// The file with the body.
    pub(crate) body: &'a Path,
    /// Connections.
    pub(crate) clients: u32,
    /// Requests at the same time on each.
    pub(crate) streams: u32,
}

/// Makes `count` requests over HTTP/2, each of which must be answered with `len` bytes.
///
/// # Errors
/// As [`run`].
pub(crate) fn post(post: &Post<'_>, count: u64, len: u64) -> anyhow::Result<Outcome> {
    let Post { target, url, headers, body, clients, streams } = post;
    let mut command = Command::new("h2load");
    command.arg(format!("--clients={clients}")).arg(format!("--max-concurrent-streams={streams}"));
    for header in *headers {
        command.arg(format!("--header={header}"));
    }
    command.arg("--data").arg(body).arg(format!("--connect-to={target}")).arg(url);
    finish(command, count, len)
}

/// Runs it to its end, and judges what it says.
fn finish(mut command: Command, count: u64, len: u64) -> anyhow::Result<Outcome> {
    command.arg(format!("--requests={count}"));
    // What every client of the benchmark offers.
    command.args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
    let start = now_ns();
    let output = command.stdin(Stdio::null()).output().context("running h2load (Debian: nghttp2-client)")?;
    let elapsed_ns = now_ns() - start;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "h2load ended with {}: {}", output.status, errors.trim());
    let (good, content) = read(&said).with_context(|| format!("h2load said {said:?}"))?;
    let done = good.min(content / len);
    let failed = count.saturating_sub(done);
    let first_failure = (failed > 0).then(|| format!("h2load counted {good} good answers, {content} bytes"));
    Ok(Outcome { done, failed, first_failure, elapsed_ns, ..Outcome::default() })
}

/// Answers of class 2xx, and bytes of content.
fn read(said: &str) -> Option<(u64, u64)> {
    let line = |begin: &str| said.lines().find_map(|line| line.strip_prefix(begin));
    let good = line("status codes: ")?.split_once(" 2xx")?.0.trim().parse().ok()?;
    let content =
        line("traffic: ")?.strip_suffix(" data")?.rsplit_once('(')?.1.strip_suffix(')')?.parse().ok()?;
    Some((good, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_h2load_says() {
        let said = "finished in 1.2s, 1 req/s, 2MB/s\n\
                    requests: 10 total, 10 started, 10 done, 9 succeeded, 1 failed, 0 errored, 0 timeout\n\
                    status codes: 9 2xx, 0 3xx, 1 4xx, 0 5xx\n\
                    traffic: 106.77MB (111958400) total, 9.92MB (10400000) headers (space savings 30.00%), \
                    9.00KB (9216) data\n";
        assert_eq!(read(said), Some((9, 9216)));
        assert_eq!(read("Process Request Failure:1\n"), None);
    }
}
