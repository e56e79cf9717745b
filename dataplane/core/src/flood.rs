//! When SYN cookies are in use: on at once when connections are asked for too fast, off when that has been over for a
//! while.
//!
//! The way back is slow on purpose: a flood that comes in waves would otherwise fill the kernel's queues at the start of
//! each, and a connection that was begun with a cookie must still find it accepted.

/// Decides by how many connections were asked for.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Connections asked for in a second; 0: never on.
    above: u32,
    is_on: bool,
    /// When it was last looked at, and how many there had been by then.
    last: Option<(u64, u64)>,
    /// Since when there have been less than half as many.
    calm_since_ms: Option<u64>,
}

/// How long it must have been calm.
pub const CALM_MS: u64 = 10_000;

/// The shortest time that a rate is taken of: less would make a flood of a burst.
const LEAST_MS: u64 = 50;

impl Gate {
    /// Off; on where more than `above` connections are asked for in a second (0: never).
    #[must_use]
    pub const fn new(above: u32) -> Self {
        Self { above, is_on: false, last: None, calm_since_ms: None }
    }

    /// Whether cookies are in use.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Looks at how many connections were asked for since the beginning. `Some`: that changes whether cookies are in use.
    pub fn look(&mut self, now_ms: u64, asked: u64) -> Option<bool> {
        let Some((then_ms, before)) = self.last else {
            self.last = Some((now_ms, asked));
            return None;
        };
        let passed_ms = now_ms.saturating_sub(then_ms);
        if passed_ms < LEAST_MS || self.above == 0 {
            return None;
        }
        self.last = Some((now_ms, asked));
        let rate = asked.saturating_sub(before).saturating_mul(1000) / passed_ms;
        if rate > u64::from(self.above) {
            self.calm_since_ms = None;
            return (!std::mem::replace(&mut self.is_on, true)).then_some(true);
        }
        if rate * 2 >= u64::from(self.above) {
            self.calm_since_ms = None;
            return None;
        }
        let calm_since_ms = *self.calm_since_ms.get_or_insert(then_ms);
        if now_ms - calm_since_ms < CALM_MS {
            return None;
        }
        std::mem::replace(&mut self.is_on, false).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each 100 ms while connections come at these rates, each for so many seconds; when what changed, in
    /// milliseconds.
    fn changes(above: u32, rates: &[(u64, u64)]) -> Vec<(u64, bool)> {
        let mut gate = Gate::new(above);
        let (mut now, mut asked, mut changes) = (5_000, 77, Vec::new());
        for (rate, seconds) in rates {
            for _ in 0..seconds * 10 {
                changes.extend(gate.look(now, asked).map(|on| (now - 5_000, on)));
                now += 100;
                asked += rate / 10;
            }
        }
        changes
    }

    #[test]
    fn it_is_on_at_once_and_off_after_a_calm() {
        assert_eq!(changes(1000, &[(900, 5), (5000, 3), (10, 20)]), [(5_100, true), (18_000, false)]);
        assert_eq!(changes(1000, &[(1000, 60)]), []);
        assert_eq!(changes(0, &[(1_000_000, 60)]), []);
    }

    #[test]
    fn waves_keep_it_on() {
        let wave = [(5000, 1), (0, 8)];
        assert_eq!(changes(1000, &wave.repeat(5)), [(100, true)]);
        // More than half is no calm.
        assert_eq!(changes(1000, &[(5000, 1), (600, 60)]), [(100, true)]);
    }

    #[test]
    fn a_counter_that_falls_and_a_clock_that_stands_do_nothing() {
        let mut gate = Gate::new(10);
        assert_eq!(gate.look(1000, 500), None);
        assert_eq!(gate.look(1000, 1_000_000), None);
        assert_eq!(gate.look(900, 1_000_000), None);
        assert_eq!(gate.look(1100, 0), None);
        assert!(!gate.is_on());
    }
}
