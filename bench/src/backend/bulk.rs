//! Bulk transfers, one blocking thread for each: they are few, and a thread is fair to all of them.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::{Mode, record_len};
use crate::content::{CHUNK, pattern};

/// Serves every connection of the listener on a thread of its own.
pub(super) fn spawn(listener: TcpListener, mode: Mode) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The other end sees how it ended: it counts and compares.
            std::thread::spawn(move || serve(stream, mode).ok());
        }
    });
}

fn serve(mut stream: TcpStream, mode: Mode) -> io::Result<()> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut hello = vec![0; record_len(header) - header.len()];
    stream.read_exact(&mut hello)?;
    let mut len = [0; 8];
    stream.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if mode == Mode::Source {
        send(&mut stream, len)
    } else {
        let right = receive(&mut stream, len)?;
        stream.write_all(&right.to_le_bytes())
    }
}

/// Sends the first `len` bytes of the pattern.
pub(crate) fn send(stream: &mut TcpStream, len: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < len {
        let size = usize::try_from(len - sent).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(pattern(sent, size))?;
        sent += size as u64;
    }
    Ok(())
}

/// Reads `len` bytes, or until the other side closes, and returns how many stood where the pattern has them.
pub(crate) fn receive(stream: &mut TcpStream, len: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let (mut got, mut right) = (0, 0);
    while got < len {
        let most = usize::try_from(len - got).unwrap_or(CHUNK).min(CHUNK);
        let size = match stream.read(&mut buffer[..most])? {
            0 => break,
            size => size,
        };
        if buffer[..size] == *pattern(got, size) {
            right += size as u64;
        }
        got += size as u64;
    }
    Ok(right)
}
