//! Whose password is hashed next. Hashing takes tens of milliseconds of a processor, so logins wait for it; and a flood of logins must not
//! keep everybody else out.
//!
//! Two lanes wait: attempts from *familiar* pairs of account and source ([`super::throttle`]), and all others. Neither lane can take the places
//! in the queue that are left for the other, and of four turns the familiar lane has three where both wait. Within a lane each source has
//! its share: turns go from source to source, and one source can wait only so often. So a flood from many addresses delays a familiar login by
//! a hash or two, and other addresses by one hash for each address of the flood.
//!
//! Left out: threads and wake-ups ([`crate::app`]), and what a refused attempt costs its source ([`super::throttle::Throttle::turned_away`]).

use std::collections::{HashMap, VecDeque};

use super::throttle::Source;

/// How many hashes run and wait at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Hashes that run at the same time; at least one.
    pub running: usize,
    /// Hashes that wait.
    pub waiting: usize,
}

/// Whose hash it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose share of the queue it takes.
    pub source: Source,
    /// Whether its source is familiar to the account.
    pub familiar: bool,
}

/// A hash that waits, or waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What happens to a hash that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// It runs now.
    Runs,
    /// It waits until [`Queue::ended`] returns it.
    Waits(Ticket),
}

/// Too many wait: of all, of its lane, or of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Hashes that run and wait.
#[derive(Debug)]
pub struct Queue {
    places: Places,
    running: usize,
    familiar: Lane,
    others: Lane,
    /// Turns of the familiar lane since the others had one.
    turns: u8,
    next: u64,
}

/// Hashes that wait, by source.
#[derive(Debug, Default)]
struct Lane {
    /// Sources that wait, the next one first.
    turn: VecDeque<Source>,
    waiting: HashMap<Source, VecDeque<Ticket>>,
    len: usize,
}

/// Turns of the familiar lane for each of the others.
const FAMILIAR_TURNS: u8 = 3;

impl Queue {
    /// A queue in which nothing runs.
    #[must_use]
    pub fn new(places: Places) -> Self {
        let places = Places { running: places.running.max(1), ..places };
        Self { places, running: 0, familiar: Lane::default(), others: Lane::default(), turns: 0, next: 0 }
    }

    /// Asks for a hash.
    ///
    /// # Errors
    /// Too many wait.
    pub fn enter(&mut self, share: Share) -> Result<Entered, Full> {
        // Nobody waits while a place is free.
        if self.running < self.places.running {
            self.running += 1;
            return Ok(Entered::Runs);
        }
        let waiting = self.places.waiting;
        // Each lane leaves a quarter of the places to the other.
        let lane_max = waiting - waiting / 4;
        // Many people may be behind one address that all of them log in from.
        let source_max = if share.familiar { lane_max.div_ceil(2) } else { lane_max.div_ceil(4) };
        let all = self.familiar.len + self.others.len;
        let lane = if share.familiar { &mut self.familiar } else { &mut self.others };
        if all >= waiting || lane.len >= lane_max || lane.of(share.source) >= source_max {
            return Err(Full);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        lane.push(share.source, ticket);
        Ok(Entered::Waits(ticket))
    }

    /// A hash has ended. Returns the one that runs now in its place.
    pub fn ended(&mut self) -> Option<Ticket> {
        let familiar = !self.familiar.is_empty() && (self.turns < FAMILIAR_TURNS || self.others.is_empty());
        self.turns = if familiar { self.turns.saturating_add(1) } else { 0 };
        let next = if familiar { self.familiar.pop() } else { self.others.pop() };
        if next.is_none() {
            self.running = self.running.saturating_sub(1);
        }
        next
    }

    /// A hash waits no longer: its client is gone. `false`: it does not wait, but runs already.
    pub fn left(&mut self, share: Share, ticket: Ticket) -> bool {
        let lane = if share.familiar { &mut self.familiar } else { &mut self.others };
        lane.remove(share.source, ticket)
    }
}

impl Lane {
    const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn of(&self, source: Source) -> usize {
        self.waiting.get(&source).map_or(0, VecDeque::len)
    }

    fn push(&mut self, source: Source, ticket: Ticket) {
        let waiting = self.waiting.entry(source).or_default();
        if waiting.is_empty() {
            self.turn.push_back(source);
        }
        waiting.push_back(ticket);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Ticket> {
        let source = self.turn.pop_front()?;
        let waiting = self.waiting.get_mut(&source)?;
        let ticket = waiting.pop_front()?;
        self.len -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.turn.push_back(source);
        }
        Some(ticket)
    }

    fn remove(&mut self, source: Source, ticket: Ticket) -> bool {
        let Some(waiting) = self.waiting.get_mut(&source) else { return false };
        let Some(at) = waiting.iter().position(|other| *other == ticket) else { return false };
        waiting.remove(at);
        self.len -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&source);
            self.turn.retain(|other| *other != source);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    const PLACES: Places = Places { running: 2, waiting: 64 };

    fn at(number: u8) -> Source {
        Source::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)))
    }

    const fn share(source: Source, familiar: bool) -> Share {
        Share { source, familiar }
    }

    /// How many of these enter, the queue being busy.
    fn entered(queue: &mut Queue, count: usize, share: impl Fn(usize) -> Share) -> usize {
        (0..count).filter(|n| queue.enter(share(*n)).is_ok()).count()
    }

    #[test]
    fn a_flood_leaves_places_to_familiar_pairs_and_they_are_next() {
        let mut queue = Queue::new(PLACES);
        // Sixty addresses with two connections each.
        let number = |n: usize| u8::try_from(n % 60).unwrap();
        assert_eq!(entered(&mut queue, 120, |n| share(at(number(n)), false)), 2 + 48);
        let Ok(Entered::Waits(ticket)) = queue.enter(share(at(200), true)) else { panic!("it is refused") };
        assert_eq!(queue.ended(), Some(ticket));
    }

    #[test]
    fn one_source_has_its_share_and_its_turn() {
        let mut queue = Queue::new(PLACES);
        assert_eq!(entered(&mut queue, 100, |_| share(at(1), false)), 2 + 12);
        let Ok(Entered::Waits(other)) = queue.enter(share(at(2), false)) else { panic!("it is refused") };
        assert!(queue.ended().is_some_and(|first| first != other));
        assert_eq!(queue.ended(), Some(other), "not after all of the first source");
        // Familiar pairs have more of it, and neither lane has all.
        assert_eq!(entered(&mut queue, 100, |_| share(at(3), true)), 24);
        assert_eq!(entered(&mut queue, 100, |_| share(at(4), true)), 24);
        assert_eq!(entered(&mut queue, 100, |_| share(at(5), true)), 0);
        assert_eq!(entered(&mut queue, 100, |_| share(at(6), false)), 5, "the rest of 64");
    }

    #[test]
    fn the_others_have_every_fourth_turn() {
        let mut queue = Queue::new(PLACES);
        entered(&mut queue, 2, |_| share(at(1), false));
        let mut familiar = Vec::new();
        for n in 0..12 {
            let Ok(Entered::Waits(ticket)) = queue.enter(share(at(10 + n), true)) else { panic!() };
            familiar.push(ticket);
            queue.enter(share(at(100 + n), false)).unwrap();
        }
        let turns: String =
            (0..16).map(|_| if familiar.contains(&queue.ended().unwrap()) { 'f' } else { 'o' }).collect();
        assert_eq!(turns, "fffofffofffofffo");
    }

    #[test]
    fn without_a_queue_only_free_places_are_taken() {
        let mut queue = Queue::new(Places { running: 0, waiting: 0 });
        assert_eq!(queue.enter(share(at(1), true)), Ok(Entered::Runs));
        assert_eq!(queue.enter(share(at(1), true)), Err(Full));
        assert_eq!(queue.ended(), None);
        assert_eq!(queue.enter(share(at(2), false)), Ok(Entered::Runs));
    }

    proptest! {
        /// Whatever happens, places are neither lost nor made up, and everybody who waits has a turn.
        #[test]
        fn every_place_is_used_and_everybody_has_a_turn(
            moves in prop::collection::vec((0_u8..3, 0_u8..6, any::<bool>()), 1..400),
            running in 1_usize..4, waiting in 0_usize..20,
        ) {
            let mut queue = Queue::new(Places { running, waiting });
            let (mut runs, mut waits) = (0, Vec::new());
            for (what, source, familiar) in moves {
                let share = share(at(source), familiar);
                match what {
                    0 => match queue.enter(share) {
                        Ok(Entered::Runs) => runs += 1,
                        Ok(Entered::Waits(ticket)) => waits.push((share, ticket)),
                        Err(Full) => prop_assert_eq!(runs, running, "refused beside a free place"),
                    },
                    1 if runs > 0 => match queue.ended() {
                        None => runs -= 1,
                        Some(next) => {
                            let before = waits.len();
                            waits.retain(|(_, ticket)| *ticket != next);
                            prop_assert_eq!(waits.len(), before - 1);
                        }
                    },
                    2 if !waits.is_empty() => {
                        let (share, ticket) = waits.swap_remove(usize::from(source) % waits.len());
                        prop_assert!(queue.left(share, ticket));
                        prop_assert!(!queue.left(share, ticket));
                    }
                    _ => {}
                }
                prop_assert!(runs <= running && waits.len() <= waiting);
                prop_assert!(waits.is_empty() || runs == running, "somebody waits beside a free place");
            }
            let turns = std::iter::from_fn(|| queue.ended()).count();
            prop_assert_eq!(turns, waits.len());
            prop_assert!(queue.familiar.waiting.is_empty() && queue.others.waiting.is_empty());
            prop_assert!(queue.familiar.turn.is_empty() && queue.others.turn.is_empty());
        }
    }
}
