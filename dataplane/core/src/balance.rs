//! Picks one of a route's backends for a new connection.
//!
//! Those that are down or draining are never picked, nor is one that was tried for this connection. Ejected
//! ones are picked only where no other is left (*panic mode*): a try that may fail is better than a refusal
//! that is certain, and a success ends the ejection. Everything is a function of the arguments, chance
//! included; nothing is allocated. The cost is linear in the route's backends.

use std::net::IpAddr;

use mc_ebpf_abi::mix;

use crate::backend::{RouteBackend, stable_hash};
use crate::model::Balance;
use crate::rate::source;

/// What a choice depends on, apart from the backends.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The route's rule.
    pub balance: Balance,
    /// See [`crate::model::Route::slow_start_ms`].
    pub slow_start_ms: u64,
    /// Those tried for this connection.
    pub tried: Tried,
    /// Any number; every bit evenly spread.
    pub random: u64,
    /// [`source_hash`] of the client.
    pub source: u64,
    /// The time.
    pub now_ms: u64,
}

/// Indices of the backends that were tried for a connection. Those above 255 are not remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried([u64; 4]);

/// The index of the backend that gets the connection; `None` where there is none that may.
///
/// `weights` gives the configured weight by index.
#[must_use]
pub fn pick(choice: &Choice, backends: &[RouteBackend], weights: impl Fn(usize) -> u32) -> Option<usize> {
    if let [only] = backends {
        return (only.allowed() && !choice.tried.contains(0)).then_some(0);
    }
    let candidates = |panic: bool| {
        let fit = move |(index, backend): &(usize, &RouteBackend)| {
            !choice.tried.contains(*index)
                && if panic { backend.allowed() } else { backend.usable(choice.now_ms) }
        };
        let weight = |(index, backend): (usize, &RouteBackend)| Candidate {
            index,
            hash: backend.live.hash,
            active: backend.live.active(),
            weight: backend.effective_weight(weights(index), choice.slow_start_ms, choice.now_ms),
        };
        backends.iter().enumerate().filter(fit).map(weight)
    };
    pick_among(choice, candidates(false)).or_else(|| pick_among(choice, candidates(true)))
}

/// A number for a client by which [`Balance::SourceHash`] knows it again: of its address of IPv4, or its /64 of
/// IPv6. The same in every process and version.
#[must_use]
pub fn source_hash(client: IpAddr) -> u64 {
    stable_hash(source(client).client(), 0)
}

impl Tried {
    /// Remembers one.
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Those, and these.
    #[must_use]
    pub fn and(self, these: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | these.0[at]))
    }

    /// Whether none was tried.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    /// Whether it was tried.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// A backend as the rules see it, at one moment.
#[derive(Clone, Copy)]
struct Candidate {
    index: usize,
    hash: u64,
    active: u32,
    weight: u32,
}

impl Candidate {
    /// Whether it has fewer connections for its weight, as many, or more.
    fn compare_load(&self, other: &Self) -> std::cmp::Ordering {
        let load = |a: &Self, b: &Self| u64::from(a.active) * u64::from(b.weight);
        load(self, other).cmp(&load(other, self))
    }
}

fn pick_among(choice: &Choice, candidates: impl Iterator<Item = Candidate> + Clone) -> Option<usize> {
    match choice.balance {
        Balance::LeastConnections => least_connections(choice.random, candidates),
        Balance::RandomOfTwo => random_of_two(choice.random, candidates),
        Balance::SourceHash => source_hashed(choice.source, candidates),
    }
    .map(|candidate| candidate.index)
}

/// The least loaded; one of several by chance and weight, so that idle backends share by weight too.
fn least_connections(mut random: u64, candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    let mut best: Option<Candidate> = None;
    let mut tied_weight = 0;
    for candidate in candidates {
        let order = best.as_ref().map_or(std::cmp::Ordering::Less, |best| candidate.compare_load(best));
        if order.is_lt() {
            tied_weight = u64::from(candidate.weight);
            best = Some(candidate);
        } else if order.is_eq() {
            tied_weight += u64::from(candidate.weight);
            random = mix(random);
            if below(random, tied_weight) < u64::from(candidate.weight) {
                best = Some(candidate);
            }
        }
    }
    best
}

/// The less loaded of two different ones drawn by weight; the first drawn where they are equal.
fn random_of_two(random: u64, candidates: impl Iterator<Item = Candidate> + Clone) -> Option<Candidate> {
    let first = draw(mix(random), candidates.clone())?;
    let others = candidates.filter(|candidate| candidate.index != first.index);
    match draw(mix(mix(random)), others) {
        Some(second) if second.compare_load(&first).is_lt() => Some(second),
        _ => Some(first),
    }
}

/// One by weight. The last where weights or health changed under the draw: other workers write them.
fn draw(random: u64, candidates: impl Iterator<Item = Candidate> + Clone) -> Option<Candidate> {
    let total = candidates.clone().map(|candidate| u64::from(candidate.weight)).sum();
    let mut left = below(random, total);
    let mut last = None;
    for candidate in candidates {
        last = Some(candidate);
        let Some(rest) = left.checked_sub(u64::from(candidate.weight)) else { break };
        left = rest;
    }
    last
}

/// Weighted rendezvous hashing: each backend scores for this client by its own hash, the highest wins, and so
/// one that leaves moves its own clients only.
fn source_hashed(source: u64, candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    let score = |candidate: &Candidate| {
        // Uniform in (0, 1); with this, -weight / ln(u) is highest in proportion to the weight.
        let uniform = ((mix(source ^ candidate.hash) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        -f64::from(candidate.weight) / uniform.ln()
    };
    candidates
        .map(|candidate| (score(&candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, best)| best)
}

/// A random number below `bound`, from a random word; 0 where `bound` is.
fn below(random: u64, bound: u64) -> u64 {
    let product = u128::from(random) * u128::from(bound);
    u64::try_from(product >> 64).expect("the upper half of a product of two words is a word")
}

#[cfg(test)]
mod tests;
