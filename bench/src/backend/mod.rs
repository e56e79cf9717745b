//! What stands behind the proxies. It need not speak TLS, because the proxies only pass bytes on: it reads
//! one ClientHello by its length and then does the one thing that its mode says.

use std::net::SocketAddr;

use anyhow::Context as _;

pub(crate) mod bulk;
mod events;

/// What a backend does after the ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Sends [`crate::content::answer`] and waits for the other side to close.
    Answer,
    /// Sends back whatever arrives.
    Echo,
    /// Reads a length (8 bytes, little endian) and so many bytes of the pattern; answers with the count of
    /// those that were right.
    Sink,
    /// Reads a length and sends so many bytes of the pattern.
    Source,
}

/// Serves on these addresses from threads of its own, for as long as the program runs. Returns the addresses
/// with the ports that were chosen where 0 was asked.
///
/// # Errors
/// An address cannot be listened on.
pub(crate) fn spawn(listen: &[(SocketAddr, Mode)]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut bound = Vec::new();
    let mut evented = Vec::new();
    for &(address, mode) in listen {
        let listener =
            std::net::TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        bound.push(listener.local_addr()?);
        match mode {
            Mode::Answer | Mode::Echo => evented.push((listener, mode)),
            Mode::Sink | Mode::Source => bulk::spawn(listener, mode),
        }
    }
    if !evented.is_empty() {
        events::spawn(evented)?;
    }
    Ok(bound)
}

/// The length of the TLS record whose header these bytes start with, header included.
fn record_len(header: [u8; 5]) -> usize {
    5 + usize::from(u16::from_be_bytes([header[3], header[4]]))
}
