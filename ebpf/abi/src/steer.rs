//! Which listener gets a connection that comes to an address on which nobody listens.
//!
//! Up to [`RULES`] rules, looked through in order when a connection is asked for: a network, a range of ports, and the
//! number of a socket. The first that fits decides.

use crate::bucket::Source;
use crate::policy::{Line, Lines};

/// Rules at most.
pub const RULES: usize = 64;

/// A network and ports, and who gets what comes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The network's address.
    pub address: Source,
    /// Its mask: bits that must be the same.
    pub mask: Source,
    /// The first port.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Where the socket is, among those that are known.
    pub socket: u16,
}

impl Rule {
    /// As it lies in memory. Never all 0.
    #[must_use]
    pub const fn to_line(self) -> Line {
        let ports = self.first as u64 | (self.last as u64) << 16;
        let what = ports | (self.socket as u64) << 32 | 1 << 48;
        [self.address.high, self.address.low, self.mask.high, self.mask.low, what, 0, 0, 0]
    }
}

/// The number of the socket that gets what comes to this address and port.
#[inline(always)]
pub fn find(rules: &impl Lines, address: Source, port: u16) -> Option<u32> {
    for index in 0..RULES as u32 {
        let rule = rules.line(index)?;
        let what = rule[4];
        if what == 0 {
            return None;
        }
        let differs = (address.high ^ rule[0]) & rule[2] | (address.low ^ rule[1]) & rule[3];
        let port = port as u64;
        if differs == 0 && port >= what & 0xffff && port <= what >> 16 & 0xffff {
            return Some((what >> 32) as u32 & 0xffff);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rules([Line; RULES]);

    impl Lines for Rules {
        fn line(&self, index: u32) -> Option<&Line> {
            self.0.get(index as usize)
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let all = u64::MAX;
        let v4 = |bits, mask: u32, ports: (u16, u16), socket| Rule {
            address: Source::v4(bits),
            mask: Source { high: all, low: 0xffff_ffff_0000_0000 | u64::from(mask) },
            first: ports.0,
            last: ports.1,
            socket,
        };
        let rules = [
            v4(0xc633_6407, u32::MAX, (443, 443), 1),
            v4(0xc633_6400, 0xffff_ff00, (443, 8443), 2),
            Rule {
                address: Source::v6(0x2001_0db8 << 32, 0),
                mask: Source::v6(all << 32, 0),
                first: 1,
                last: 65535,
                socket: 3,
            },
            v4(0, 0, (80, 80), 4),
        ];
        let mut lines = [Line::default(); RULES];
        for (line, rule) in lines.iter_mut().zip(rules) {
            *line = rule.to_line();
        }
        let rules = Rules(lines);
        let check =
            |address, port, expect| assert_eq!(find(&rules, address, port), expect, "{address:?} {port}");
        check(Source::v4(0xc633_6407), 443, Some(1));
        check(Source::v4(0xc633_6407), 444, Some(2));
        check(Source::v4(0xc633_6408), 443, Some(2));
        check(Source::v4(0xc633_6408), 442, None);
        check(Source::v4(0xc633_6508), 443, None);
        check(Source::v4(0xc633_6508), 80, Some(4));
        check(Source::v6(0x2001_0db8_0000_0001, 7), 65535, Some(3));
        check(Source::v6(0x2001_0db9_0000_0001, 7), 80, None);
    }
}
