//! Compresses a response's content piece by piece.
//!
//! Each piece can be read by the client as soon as it has come: what a backend streams is not held until its end. A
//! response costs about a MiB while it lasts, whatever its size.

use std::io::{self, Write};
use std::sync::Arc;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use mc_core::content_coding::Coding;
use mc_core::outcome::RequestOutcome;

use super::fault::Fault;
use crate::budgets::SharedPolicy;

/// One response's encoder.
enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Br(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

/// A response's content on its way, encoded where that was agreed.
pub(super) struct Coder(Option<Counted>);

/// An encoder that is counted for as long as it lives.
struct Counted {
    encoder: Option<Encoder>,
    policy: Arc<SharedPolicy>,
}

/// Levels at which compressing costs about as much as encrypting.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_LEVEL: i32 = 4;
const GZIP_LEVEL: u32 = 5;

/// Bits of the window: 256 KiB.
const WINDOW: i32 = 18;

/// Bytes that the brotli encoder keeps for its output.
const BROTLI_BUFFER: usize = 4096;

impl Coder {
    /// Passes content on as it is.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Encodes in this way, or passes content on as it is. So it does, and takes `coding` away, where as many responses are
    /// encoded as there may be.
    ///
    /// # Errors
    /// There is no memory for it; the client knows of nothing yet.
    pub(super) fn new(coding: &mut Option<Coding>, policy: &Arc<SharedPolicy>) -> Result<Self, Fault> {
        let Some(wanted) = *coding else { return Ok(Self::none()) };
        if !policy.budgets.begin_coding() {
            *coding = None;
            return Ok(Self::none());
        }
        let mut counted = Counted { encoder: None, policy: Arc::clone(policy) };
        let encoder = Encoder::new(wanted);
        counted.encoder = Some(encoder.map_err(|error| Fault::before(RequestOutcome::BackendCut, error))?);
        Ok(Self(Some(counted)))
    }

    /// Whether it encodes.
    pub(super) const fn encodes(&self) -> bool {
        self.0.is_some()
    }

    /// The next piece as it is sent on; `last`: there is no other. Nothing may come of a piece.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, Fault> {
        let Some(counted) = &mut self.0 else { return Ok(piece) };
        let encoded = match &mut counted.encoder {
            Some(encoder) if !last => encoder.piece(&piece),
            encoder => encoder.take().map_or_else(|| Ok(Vec::new()), |encoder| encoder.finish(&piece)),
        };
        encoded.map(Bytes::from).map_err(|error| Fault::amid(RequestOutcome::BackendCut, error))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.policy.budgets.coders.release();
    }
}

impl Encoder {
    /// An encoder that has seen nothing.
    ///
    /// # Errors
    /// There is no memory for it.
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW.unsigned_abs())?;
                Self::Zstd(encoder)
            }
            Coding::Br => {
                let params =
                    BrotliEncoderParams { quality: BROTLI_LEVEL, lgwin: WINDOW, ..Default::default() };
                Self::Br(Box::new(CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &params)))
            }
            Coding::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL)))),
        })
    }

    /// Encodes a piece, so that all of it can be decoded from what is returned and what was returned before.
    ///
    /// # Errors
    /// There is no memory for it.
    fn piece(&mut self, content: &[u8]) -> io::Result<Vec<u8>> {
        fn encode(encoder: &mut impl Write, content: &[u8]) -> io::Result<()> {
            encoder.write_all(content)?;
            encoder.flush()
        }
        if content.is_empty() {
            return Ok(Vec::new());
        }
        let out = match self {
            Self::Zstd(encoder) => {
                encode(encoder, content)?;
                encoder.get_mut()
            }
            Self::Br(encoder) => {
                encode(encoder, content)?;
                encoder.get_mut()
            }
            Self::Gzip(encoder) => {
                encode(encoder, content)?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(out))
    }

    /// Encodes the last piece, which may be empty, and ends.
    ///
    /// # Errors
    /// There is no memory for it.
    fn finish(self, content: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(mut encoder) => {
                encoder.write_all(content)?;
                encoder.finish()
            }
            Self::Br(mut encoder) => {
                encoder.write_all(content)?;
                Ok(encoder.into_inner())
            }
            Self::Gzip(mut encoder) => {
                encoder.write_all(content)?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn decode(coding: Coding, encoded: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        match coding {
            Coding::Zstd => zstd::stream::read::Decoder::new(encoded)?.read_to_end(&mut content)?,
            Coding::Br => brotli::Decompressor::new(encoded, 4096).read_to_end(&mut content)?,
            Coding::Gzip => flate2::read::GzDecoder::new(encoded).read_to_end(&mut content)?,
        };
        Ok(content)
    }

    /// As much as a client can read of what has come.
    fn decode_so_far(coding: Coding, encoded: &[u8], len: usize) -> Vec<u8> {
        let mut content = vec![0; len];
        match coding {
            Coding::Zstd => zstd::stream::read::Decoder::new(encoded).unwrap().read_exact(&mut content),
            Coding::Br => brotli::Decompressor::new(encoded, 4096).read_exact(&mut content),
            Coding::Gzip => flate2::read::GzDecoder::new(encoded).read_exact(&mut content),
        }
        .unwrap();
        content
    }

    #[test]
    fn each_piece_can_be_read_when_it_has_come() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let (mut encoded, mut content) = (Vec::new(), Vec::new());
            for size in [1, 10, 1000, 70_000, 3] {
                let piece: Vec<u8> = (0..size).map(|at| b"some text that repeats "[at % 23]).collect();
                content.extend_from_slice(&piece);
                encoded.extend(encoder.piece(&piece).unwrap());
                assert_eq!(decode_so_far(coding, &encoded, content.len()), content, "{coding:?} {size}");
            }
            encoded.extend(encoder.finish(b"the end").unwrap());
            content.extend_from_slice(b"the end");
            assert_eq!(decode(coding, &encoded).unwrap(), content, "{coding:?}");
            assert!(encoded.len() < content.len() / 10, "{coding:?}: {} bytes", encoded.len());
        }
    }

    #[test]
    fn nothing_is_encoded_too_and_a_part_is_not_the_whole() {
        for coding in Coding::ALL {
            let empty = Encoder::new(coding).unwrap().finish(b"").unwrap();
            assert_eq!(decode(coding, &empty).unwrap(), b"", "{coding:?}");
            let mut encoder = Encoder::new(coding).unwrap();
            let part = encoder.piece(b"half of it").unwrap();
            assert!(decode(coding, &part).is_err(), "{coding:?}");
        }
    }
}
