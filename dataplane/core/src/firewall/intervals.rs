//! Networks as disjoint intervals: the longest match is one binary search.

use ipnet::{Ipv4Net, Ipv6Net};
use mc_ebpf_abi::verdict::Opinion;

use super::Rule;

/// Which rule decides, by address.
#[derive(Debug, Default)]
pub(super) struct Intervals<A> {
    /// Rising: an interval goes from its start to before the next one's.
    starts: Vec<A>,
    /// In step with `starts`.
    rules: Vec<Option<Rule>>,
}

/// A network and the rule about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network<A> {
    first: A,
    last: A,
    rule: Rule,
}

impl Network<u32> {
    pub(super) fn v4(net: Ipv4Net, rule: Rule) -> Self {
        Self { first: net.network().to_bits(), last: net.broadcast().to_bits(), rule }
    }
}

impl Network<u128> {
    pub(super) fn v6(net: Ipv6Net, rule: Rule) -> Self {
        Self { first: net.network().to_bits(), last: net.broadcast().to_bits(), rule }
    }
}

impl<A: Address> Intervals<A> {
    /// One sweep over the networks in order of their start, the wider first: the stack holds those that are open,
    /// the innermost on top, which decides until it ends or a narrower one starts.
    pub(super) fn new(mut networks: Vec<Network<A>>) -> Self {
        // Of equal networks the one that decides comes last: those that allow, and among them the first.
        let rank = |rule: &Rule| (rule.opinion == Opinion::Allow, std::cmp::Reverse(rule.index));
        networks.sort_unstable_by(|a, b| {
            let wider_first = (a.first, std::cmp::Reverse(a.last)).cmp(&(b.first, std::cmp::Reverse(b.last)));
            wider_first.then_with(|| rank(&a.rule).cmp(&rank(&b.rule)))
        });
        let mut intervals = Self { starts: Vec::new(), rules: Vec::new() };
        let mut open: Vec<Network<A>> = Vec::new();
        for network in networks {
            intervals.close(&mut open, Some(network.first));
            intervals.start(network.first, Some(network.rule));
            open.push(network);
        }
        intervals.close(&mut open, None);
        intervals.starts.shrink_to_fit();
        intervals.rules.shrink_to_fit();
        intervals
    }

    /// The rule that decides about an address.
    pub(super) fn find(&self, address: A) -> Option<Rule> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.rules[after.checked_sub(1)?]
    }

    /// Where another rule begins to decide, rising, and which.
    pub(super) fn steps(&self) -> impl Iterator<Item = (A, Option<Rule>)> {
        self.starts.iter().copied().zip(self.rules.iter().copied())
    }

    /// Ends what is open and lies before `next`; `None`: everything.
    fn close(&mut self, open: &mut Vec<Network<A>>, next: Option<A>) {
        while let Some(inner) = open.pop_if(|inner| next.is_none_or(|next| inner.last < next)) {
            if let Some(after) = inner.last.next() {
                self.start(after, open.last().map(|outer| outer.rule));
            }
        }
    }

    /// A rule decides from here on.
    fn start(&mut self, address: A, rule: Option<Rule>) {
        if self.starts.last() == Some(&address) {
            self.rules.pop();
            self.starts.pop();
        }
        if self.rules.last().copied().flatten() != rule {
            self.starts.push(address);
            self.rules.push(rule);
        }
    }
}

/// An address as a number.
pub(super) trait Address: Copy + Ord {
    /// The one after it; `None` after the last.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}
