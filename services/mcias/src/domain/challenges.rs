//! Challenges that wait for an answer: for a while, so many at most, and so many of one source.
//!
//! Anybody may ask for one, without a name. When there is no place left the oldest goes, so that whoever answers soon is
//! served whatever others do; and whoever asks for many takes the place of their own.

use std::collections::HashMap;
use std::time::Duration;

use super::throttle::Source;

/// How many may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// How long each waits.
    pub time: Duration,
    /// How many wait at most.
    pub all: usize,
    /// How many of one source.
    pub of_one: usize,
}

/// What waits, by the identifier that comes back with the answer. Times are since any start, the same for all calls.
#[derive(Debug)]
pub struct Challenges<T> {
    room: Room,
    waiting: HashMap<String, Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    since: Duration,
    from: Source,
    what: T,
}

impl<T> Challenges<T> {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(room: Room) -> Self {
        Self { room, waiting: HashMap::new() }
    }

    /// Has `what` wait under an identifier that is new.
    pub fn put(&mut self, now: Duration, from: Source, id: String, what: T) {
        let time = self.room.time;
        self.waiting.retain(|_, waiting| now.saturating_sub(waiting.since) < time);
        let of_one = self.waiting.values().filter(|waiting| waiting.from == from).count();
        if of_one >= self.room.of_one {
            self.forget_oldest(|waiting| waiting.from == from);
        } else if self.waiting.len() >= self.room.all {
            self.forget_oldest(|_| true);
        }
        self.waiting.insert(id, Waiting { since: now, from, what });
    }

    fn forget_oldest(&mut self, among: impl Fn(&Waiting<T>) -> bool) {
        let oldest = self.waiting.iter().filter(|(_, waiting)| among(waiting));
        let oldest = oldest.min_by_key(|(_, waiting)| waiting.since).map(|(id, _)| id.clone());
        oldest.map(|id| self.waiting.remove(&id));
    }

    /// What waits under this identifier, which waits no longer: it is answered once.
    pub fn take(&mut self, now: Duration, id: &str) -> Option<T> {
        let waiting = self.waiting.remove(id)?;
        (now.saturating_sub(waiting.since) < self.room.time).then_some(waiting.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { time: Duration::from_secs(300), all: 6, of_one: 3 };

    fn from(last: u8) -> Source {
        Source::from(std::net::IpAddr::from([192, 0, 2, last]))
    }

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn it_is_answered_once_and_in_time() {
        let mut challenges = Challenges::new(ROOM);
        challenges.put(at(0), from(1), "a".to_owned(), 'a');
        challenges.put(at(1), from(1), "b".to_owned(), 'b');
        assert_eq!(challenges.take(at(299), "a"), Some('a'));
        assert_eq!(challenges.take(at(299), "a"), None);
        assert_eq!(challenges.take(at(301), "b"), None);
        assert_eq!(challenges.take(at(301), "c"), None);
    }

    #[test]
    fn whoever_asks_for_many_takes_the_place_of_their_own() {
        let mut challenges = Challenges::new(ROOM);
        challenges.put(at(0), from(1), "mine".to_owned(), 0);
        for n in 1..=100 {
            challenges.put(at(n), from(2), format!("theirs {n}"), n);
        }
        assert_eq!(challenges.waiting.len(), 1 + ROOM.of_one);
        assert_eq!(challenges.take(at(100), "theirs 97"), None);
        assert_eq!(challenges.take(at(100), "theirs 98"), Some(98));
        assert_eq!(challenges.take(at(100), "mine"), Some(0));
    }

    #[test]
    fn where_many_ask_the_oldest_goes() {
        let mut challenges = Challenges::new(ROOM);
        for n in 0..100 {
            challenges.put(at(n), from(u8::try_from(n).unwrap()), n.to_string(), n);
            assert!(challenges.waiting.len() <= ROOM.all);
        }
        assert_eq!(challenges.take(at(100), "93"), None);
        assert_eq!(challenges.take(at(100), "94"), Some(94));
        // What is over makes place too.
        challenges.put(at(1000), from(1), "new".to_owned(), 1);
        assert_eq!(challenges.waiting.len(), 1);
    }
}
