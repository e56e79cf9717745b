//! Many bytes through a connection, made and checked as fast as they move.

use std::io::{self, Read, Write};

/// What went through: how many bytes, and their CRC-32C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32C of all of them in order.
    pub crc: u32,
}

impl Sum {
    /// Adds what comes next.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += u64::try_from(bytes.len()).expect("lengths fit in 64 bits");
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

/// Adds up what is written.
impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends so many bytes, no two blocks alike.
///
/// # Errors
/// The connection's.
pub fn pour(mut into: impl Write, bytes: u64, seed: u64) -> io::Result<Sum> {
    let mut sum = Sum::default();
    let mut block = noise(seed);
    while sum.bytes < bytes {
        // Blocks that swap places or come twice would be noticed.
        block[..8].copy_from_slice(&sum.bytes.to_le_bytes());
        let left = usize::try_from(bytes - sum.bytes).unwrap_or(BLOCK);
        let part = &block[..left.min(BLOCK)];
        into.write_all(part)?;
        sum.add(part);
    }
    Ok(sum)
}

/// Reads until there are so many bytes or the other side finishes.
///
/// # Errors
/// The connection's.
pub fn drink(mut from: impl Read, at_most: u64) -> io::Result<Sum> {
    let mut sum = Sum::default();
    let mut buffer = vec![0; BLOCK];
    while sum.bytes < at_most {
        let left = usize::try_from(at_most - sum.bytes).unwrap_or(BLOCK);
        let read = from.read(&mut buffer[..left.min(BLOCK)])?;
        if read == 0 {
            break;
        }
        sum.add(&buffer[..read]);
    }
    Ok(sum)
}

/// A block of bytes without a pattern (xorshift).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BLOCK / 8).flat_map(|_| next()).collect()
}

const BLOCK: usize = 256 * 1024;
