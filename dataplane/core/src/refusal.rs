//! Backends that refuse connections: who asks them again, who waits, and who is told at once.
//!
//! A backend that restarts refuses connections for a moment and has not seen the request, which therefore may wait for
//! it. When many requests wait, one of them is enough to find out: a *probe*. From the first refusal on, probes are made
//! with growing pauses, one at a time; other requests wait for the next. When a probe after [`RESTART_MS`] is refused,
//! nobody waits any more: requests are refused at once, but for one every half second, which probes.
//!
//! Connects that began before the first refusal was known are not held back: nothing was known then. One [`Refusals`] is
//! one worker's, and all of its routes share it, as an address that refuses one refuses all. Time is a value, in
//! milliseconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Backends that refuse, of one worker.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<SocketAddr, Refusing>);

#[derive(Debug)]
struct Refusing {
    /// When it was first refused.
    since_ms: u64,
    /// When the next probe is due.
    next_ms: u64,
    /// The pause before that.
    pause_ms: u64,
    /// A probe is under way.
    is_probed: bool,
    /// It was refused for longer than a restart takes.
    is_dead: bool,
    /// Requests that wait.
    waiting: u32,
}

/// What a request does that needs a new connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It connects: nothing speaks against it.
    Connect,
    /// It connects, and nobody else does meanwhile. It must say how that ended: [`Refusals::refused`],
    /// [`Refusals::ended`] or [`Refusals::abandoned`].
    Probe,
    /// It does not connect: the backend has just refused.
    Refused(Again),
}

/// Whether and when a request that was refused may ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It may wait until then: the backend may be restarting.
    At(u64),
    /// Never: the backend has refused for longer than a restart takes.
    Never,
}

/// How long a backend that refuses connections is waited for.
pub const RESTART_MS: u64 = 1_500;

/// The first pause before it is asked again, and the longest while requests wait.
const FIRST_PAUSE_MS: u64 = 20;
const MAX_PAUSE_MS: u64 = 200;

/// The pause after that.
const DEAD_PAUSE_MS: u64 = 500;

/// Requests that wait for one backend; those beyond it are told at once.
const MAX_WAITING: u32 = 1024;

/// A backend that is dead and that nobody has asked for so long is forgotten: the next request waits for it again. One that
/// may have been restarting is forgotten after [`RESTART_MS`], as what refuses then is another restart.
const FORGET_MS: u64 = 60_000;

impl Refusals {
    /// What a request does that needs a new connection to this backend.
    pub fn ask(&mut self, backend: SocketAddr, now_ms: u64) -> Advice {
        let Some(refusing) = self.0.get_mut(&backend) else { return Advice::Connect };
        if refusing.is_forgotten(now_ms) {
            self.0.remove(&backend);
            return Advice::Connect;
        }
        if refusing.is_probed || now_ms < refusing.next_ms {
            return Advice::Refused(refusing.again(now_ms));
        }
        refusing.is_probed = true;
        Advice::Probe
    }

    /// The backend has refused a connect, which was a probe or not. Says when the request may ask again.
    pub fn refused(&mut self, backend: SocketAddr, was_probe: bool, now_ms: u64) -> Again {
        let refusing = self.0.entry(backend).or_insert(Refusing {
            since_ms: now_ms,
            next_ms: now_ms + FIRST_PAUSE_MS,
            pause_ms: FIRST_PAUSE_MS,
            is_probed: false,
            is_dead: false,
            waiting: 0,
        });
        if was_probe {
            refusing.is_probed = false;
            refusing.is_dead = now_ms >= refusing.since_ms + RESTART_MS;
            refusing.pause_ms =
                if refusing.is_dead { DEAD_PAUSE_MS } else { (refusing.pause_ms * 2).min(MAX_PAUSE_MS) };
            refusing.next_ms = now_ms + refusing.pause_ms;
        }
        refusing.again(now_ms)
    }

    /// A connect has ended in another way than by a refusal: what was known is over.
    pub fn ended(&mut self, backend: SocketAddr) {
        self.0.remove(&backend);
    }

    /// The request that probed has gone before it knew: another one may.
    pub fn abandoned(&mut self, backend: SocketAddr) {
        if let Some(refusing) = self.0.get_mut(&backend) {
            refusing.is_probed = false;
        }
    }

    /// A request would wait for this backend; `false`: too many do. Each that does is matched by one of [`Self::waited`].
    pub fn wait(&mut self, backend: SocketAddr) -> bool {
        let Some(refusing) = self.0.get_mut(&backend) else { return true };
        let may = refusing.waiting < MAX_WAITING;
        refusing.waiting += u32::from(may);
        may
    }

    /// A request does not wait any more.
    pub fn waited(&mut self, backend: SocketAddr) {
        if let Some(refusing) = self.0.get_mut(&backend) {
            // What it waited for may have come back and refused again meanwhile.
            refusing.waiting = refusing.waiting.saturating_sub(1);
        }
    }

    /// Whether no backend refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets those that nobody has asked for long.
    pub fn sweep(&mut self, now_ms: u64) {
        self.0.retain(|_, refusing| !refusing.is_forgotten(now_ms));
    }
}

impl Refusing {
    /// When a request may ask again; while a probe is under way, a moment from now.
    fn again(&self, now_ms: u64) -> Again {
        if self.is_dead { Again::Never } else { Again::At(self.next_ms.max(now_ms + FIRST_PAUSE_MS)) }
    }

    /// Whether what is known is too old to say anything.
    const fn is_forgotten(&self, now_ms: u64) -> bool {
        let kept_ms = if self.is_dead { FORGET_MS } else { RESTART_MS };
        !self.is_probed && now_ms >= self.next_ms + kept_ms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKEND: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 443);

    #[test]
    fn one_asks_and_the_others_wait_for_it() {
        let mut all = Refusals::default();
        assert_eq!(all.ask(BACKEND, 1000), Advice::Connect);
        assert_eq!(all.ask(BACKEND, 1000), Advice::Connect, "nothing is known yet");
        assert_eq!(all.refused(BACKEND, false, 1000), Again::At(1020));
        assert_eq!(all.refused(BACKEND, false, 1001), Again::At(1021), "the pause does not grow by that");
        assert_eq!(all.ask(BACKEND, 1019), Advice::Refused(Again::At(1039)));
        assert_eq!(all.ask(BACKEND, 1020), Advice::Probe);
        assert_eq!(all.ask(BACKEND, 1020), Advice::Refused(Again::At(1040)), "one at a time");
        assert_eq!(all.refused(BACKEND, true, 1021), Again::At(1061));
        assert_eq!(all.ask(BACKEND, 1061), Advice::Probe);
        all.abandoned(BACKEND);
        assert_eq!(all.ask(BACKEND, 1061), Advice::Probe, "another one may");
        all.ended(BACKEND);
        assert!(all.is_empty());
        assert_eq!(all.ask(BACKEND, 1062), Advice::Connect);
    }

    #[test]
    fn a_backend_that_stays_away_is_asked_by_one_request_in_a_while() {
        let mut all = Refusals::default();
        all.refused(BACKEND, false, 1000);
        let mut probes = Vec::new();
        for now_ms in 1000..=1000 + RESTART_MS + 1000 {
            let is_over = probes.last().is_some_and(|at| *at >= 1000 + RESTART_MS);
            match all.ask(BACKEND, now_ms) {
                Advice::Probe => {
                    probes.push(now_ms);
                    let again = all.refused(BACKEND, true, now_ms);
                    assert_eq!(again == Again::Never, now_ms >= 1000 + RESTART_MS, "at {now_ms}");
                }
                // Those that have waited until now wait for the probe that is made now.
                advice => {
                    assert_eq!(advice == Advice::Refused(Again::Never), is_over, "{advice:?} at {now_ms}")
                }
            }
        }
        assert_eq!(probes, [1020, 1060, 1140, 1300, 1500, 1700, 1900, 2100, 2300, 2500, 3000, 3500]);
        all.sweep(3500 + DEAD_PAUSE_MS + FORGET_MS - 1);
        assert!(!all.is_empty());
        all.sweep(3500 + DEAD_PAUSE_MS + FORGET_MS);
        assert!(all.is_empty());
    }

    #[test]
    fn a_restart_that_nobody_saw_the_end_of_is_not_counted_to_the_next() {
        let mut all = Refusals::default();
        all.refused(BACKEND, false, 1000);
        assert_eq!(all.ask(BACKEND, 1020 + RESTART_MS), Advice::Connect);
        assert_eq!(all.refused(BACKEND, false, 1020 + RESTART_MS), Again::At(1040 + RESTART_MS));
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let mut all = Refusals::default();
        all.refused(BACKEND, false, 1000);
        assert!((0..MAX_WAITING).all(|_| all.wait(BACKEND)));
        assert!(!all.wait(BACKEND));
        all.waited(BACKEND);
        assert!(all.wait(BACKEND));
        all.ended(BACKEND);
        all.waited(BACKEND);
        assert!(all.wait(BACKEND) && all.is_empty());
    }

    proptest! {
        /// Requests that come when they like, wait as they are told, and ask again: the backend sees few
        /// connects in all, and no request waits for longer than a restart takes and a pause.
        #[test]
        fn few_connects_however_many_ask(arrivals in proptest::collection::vec(0_u64..5000, 1..300)) {
            let mut all = Refusals::default();
            let mut due: Vec<(u64, u64)> = arrivals.iter().map(|at| (*at, *at)).collect();
            let mut connects = 0_u64;
            while let Some(index) = (0..due.len()).min_by_key(|index| due[*index]) {
                let (now_ms, began_ms) = due.swap_remove(index);
                let again = match all.ask(BACKEND, now_ms) {
                    Advice::Refused(again) => again,
                    advice => {
                        connects += 1;
                        all.refused(BACKEND, advice == Advice::Probe, now_ms)
                    }
                };
                if let Again::At(at) = again {
                    prop_assert!(at > now_ms);
                    due.push((at, began_ms));
                } else {
                    prop_assert!(now_ms - began_ms <= RESTART_MS + MAX_PAUSE_MS);
                }
            }
            prop_assert!(connects <= 11 + 5000 / DEAD_PAUSE_MS, "{connects} connects");
        }

        /// Whatever is said in whatever order, a backend that is back is asked before long.
        #[test]
        fn nobody_is_shut_out_for_ever(steps in proptest::collection::vec((0_u8..6, 0_u64..300), 0..60)) {
            let mut all = Refusals::default();
            let mut now_ms = 1000;
            let mut is_probed = false;
            for (step, later) in steps {
                now_ms += later;
                match step {
                    0 | 1 => is_probed |= all.ask(BACKEND, now_ms) == Advice::Probe,
                    2 => {
                        all.refused(BACKEND, is_probed, now_ms);
                        is_probed = false;
                    }
                    3 if is_probed => {
                        all.abandoned(BACKEND);
                        is_probed = false;
                    }
                    4 => {
                        all.ended(BACKEND);
                        is_probed = false;
                    }
                    _ => all.sweep(now_ms),
                }
            }
            if is_probed {
                all.abandoned(BACKEND);
            }
            let advice = all.ask(BACKEND, now_ms + DEAD_PAUSE_MS);
            prop_assert!(!matches!(advice, Advice::Refused(_)), "{advice:?}");
        }
    }
}
