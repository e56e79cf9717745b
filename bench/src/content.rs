//! What is sent, so that the receiver can tell whether it arrived: every byte of an answer and of a bulk
//! transfer is compared with what it must be, at the price of a `memcmp`.

use std::sync::OnceLock;

/// Bytes of the backend's answer to a ClientHello.
pub(crate) const ANSWER_LEN: usize = 1024;

/// The largest slice of [`pattern`].
pub(crate) const CHUNK: usize = 256 * 1024;

/// The answer to this ClientHello: its checksum and length (so that a changed hello shows), then text.
pub(crate) fn answer(hello: &[u8]) -> [u8; ANSWER_LEN] {
    let mut answer = [0; ANSWER_LEN];
    answer[..4].copy_from_slice(&crc32c::crc32c(hello).to_le_bytes());
    answer[4..8].copy_from_slice(&u32::try_from(hello.len()).expect("a hello is short").to_le_bytes());
    answer[8..].copy_from_slice(&pattern(0, ANSWER_LEN)[8..]);
    answer
}

/// The bytes of a bulk transfer from `offset` on, at most [`CHUNK`]. The period is prime, so that bytes
/// lost, doubled or swapped in any usual block size show.
pub(crate) fn pattern(offset: u64, len: usize) -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(1);
        let period: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(PERIOD).collect();
        [&period[..], &period[..CHUNK]].concat()
    });
    let start = usize::try_from(offset % PERIOD as u64).expect("smaller than the period");
    &pattern[start..start + len]
}

const PERIOD: usize = 1_048_573;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_goes_on_where_it_was_cut() {
        for offset in [0, 1, PERIOD as u64 - 1, PERIOD as u64, 5_000_000_000] {
            let whole = pattern(offset, 1000);
            assert_eq!(whole[..300], *pattern(offset, 300));
            assert_eq!(whole[300..], *pattern(offset + 300, 700));
        }
    }

    #[test]
    fn answers_tell_hellos_apart() {
        assert_ne!(answer(b"one"), answer(b"two"));
        assert_eq!(answer(b"one")[8..], answer(b"two")[8..]);
    }
}
