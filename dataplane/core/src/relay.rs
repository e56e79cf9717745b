//! Decides how one direction of a relayed connection moves its bytes: copied while it is chatty, spliced
//! when it proves to be bulk, and back.
//!
//! A copy costs two system calls and touches the bytes; a splice costs two system calls and does not, but
//! needs a pipe and moves whole pages, which is dearer for small messages. So the choice follows the size
//! of what recent reads brought.

/// How the next bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `recv` and `send` through the worker's buffer.
    Copy,
    /// `splice` through a pipe.
    Splice,
}

/// One direction's recent history.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    method: Method,
    // Reads in a row that speak for the other method.
    against: u8,
}

/// A read of at least so many bytes speaks for splicing.
const BULK_READ: usize = 16 * 1024;

/// A turn that moved less than this speaks for copying.
const SMALL_TURN: usize = 4 * 1024;

/// Bulk reads in a row that switch to splicing.
const TO_SPLICE: u8 = 3;

/// Small turns in a row that switch to copying.
const TO_COPY: u8 = 8;

impl Choice {
    /// A direction that has moved nothing is chatty until it proves otherwise.
    #[must_use]
    pub const fn new() -> Self {
        Self { method: Method::Copy, against: 0 }
    }

    /// How to move the next bytes.
    #[must_use]
    pub const fn method(self) -> Method {
        self.method
    }

    /// A copy moved `bytes`.
    pub const fn copied(&mut self, bytes: usize) {
        self.count(bytes >= BULK_READ, TO_SPLICE, Method::Splice);
    }

    /// A turn of splicing, from readable until empty, moved `bytes`.
    pub const fn spliced(&mut self, bytes: usize) {
        self.count(bytes < SMALL_TURN, TO_COPY, Method::Copy);
    }

    /// Splicing is impossible for now (no descriptor for a pipe): copy, and try again after more bulk.
    pub const fn cannot_splice(&mut self) {
        *self = Self::new();
    }

    const fn count(&mut self, against: bool, enough: u8, other: Method) {
        self.against = if against { self.against + 1 } else { 0 };
        if self.against >= enough {
            *self = Self { method: other, against: 0 };
        }
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Method};

    #[track_caller]
    fn check(reads: &[usize], expect: Method) {
        let mut choice = Choice::new();
        for &bytes in reads {
            match choice.method() {
                Method::Copy => choice.copied(bytes),
                Method::Splice => choice.spliced(bytes),
            }
        }
        assert_eq!(choice.method(), expect, "{reads:?}");
    }

    #[test]
    fn chatty_directions_are_copied() {
        check(&[], Method::Copy);
        check(&[1024; 1000], Method::Copy);
        check(&[65536, 65536, 100, 65536, 65536, 100], Method::Copy);
    }

    #[test]
    fn bulk_is_spliced_and_survives_a_pause() {
        check(&[65536; 3], Method::Splice);
        check(&[65536, 65536, 65536, 100, 100, 65536], Method::Splice);
    }

    #[test]
    fn a_direction_that_turns_chatty_is_copied_again() {
        let mut reads = vec![65536; 3];
        reads.extend([100; 8]);
        check(&reads, Method::Copy);
    }
}
