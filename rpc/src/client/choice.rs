//! The connections that calls can be sent on, and which of them a call gets.

use reactor::ConnId;
use smallvec::SmallVec;

use super::config::Balance;
use super::endpoint::{ClientConn, EndpointKey};
use super::handler::Cx;

/// How often one connection stands in a list at most, for the sake of its endpoint's weight: lists stay short, and shares right to a sixteenth of the largest.
const SHARES_MAX: u64 = 16;

/// A connection that calls can be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) conn: ConnId,
    pub(super) endpoint: EndpointKey,
    /// That of its endpoint.
    pub(super) weight: u32,
}

/// Those of endpoints that are trusted, and the others. Where weights differ, who has a larger one stands in its list several times.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    ready: Vec<Candidate>,
    ejected: Vec<Candidate>,
    turn: usize,
}

impl Candidates {
    /// Replaces all.
    pub(super) fn set(&mut self, ready: &[Candidate], ejected: Vec<Candidate>) {
        spread(ready, &mut self.ready);
        self.ejected = ejected;
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, conn: ConnId) {
        self.ready.retain(|known| known.conn != conn);
        self.ejected.retain(|known| known.conn != conn);
    }

    /// Connections of endpoints that are not trusted.
    pub(super) fn ejected(&self) -> &[Candidate] {
        &self.ejected
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.ejected.is_empty()
    }

    /// One with room for a call, not to `avoid` if there is another.
    pub(super) fn choose(
        &mut self,
        cx: &Cx<'_>,
        avoid: Option<EndpointKey>,
        balance: Balance,
        rng: &mut fastrand::Rng,
    ) -> Option<Candidate> {
        // Better one that has failed than nobody; and what it answers is what brings it back.
        let list = if self.ready.is_empty() { &self.ejected } else { &self.ready };
        let elsewhere: SmallVec<[Candidate; 8]> = match avoid {
            None => SmallVec::new(),
            Some(avoid) => list.iter().copied().filter(|known| known.endpoint != avoid).collect(),
        };
        let list = if elsewhere.is_empty() { list.as_slice() } else { elsewhere.as_slice() };
        let in_flight = |known: &Candidate| cx.conn(known.conn).map_or(u32::MAX, |conn| conn.in_flight);
        let has_room = |known: &&Candidate| cx.conn(known.conn).is_some_and(ClientConn::has_room);
        let first = one_of(list, balance, &mut self.turn, rng, in_flight);
        first.filter(has_room).or_else(|| list.iter().find(has_room)).copied()
    }
}

fn one_of<'a>(
    list: &'a [Candidate],
    balance: Balance,
    turn: &mut usize,
    rng: &mut fastrand::Rng,
    in_flight: impl Fn(&Candidate) -> u32,
) -> Option<&'a Candidate> {
    match (list.len(), balance) {
        (0 | 1, _) => list.first(),
        (count, Balance::RoundRobin) => {
            *turn = turn.wrapping_add(1);
            list.get(*turn % count)
        }
        (count, Balance::PowerOfTwo) => {
            let first = rng.usize(..count);
            // Another than the first: the draw leaves its place out.
            let second = (first + 1 + rng.usize(..count - 1)) % count;
            let (first, second) = (list.get(first)?, list.get(second)?);
            // The smaller load for its weight, without a division.
            let load = |one, other: &Candidate| u64::from(in_flight(one)) * u64::from(other.weight);
            Some(if load(second, first) < load(first, second) { second } else { first })
        }
    }
}

/// Puts each of `candidates` into `list` as often as its weight asks for, turn by turn.
fn spread(candidates: &[Candidate], list: &mut Vec<Candidate>) {
    list.clear();
    let divisor = candidates.iter().fold(0, |divisor, known| common_divisor(divisor, known.weight));
    let Some(most) = candidates.iter().map(|known| known.weight).max() else { return };
    let most = u64::from(most / divisor.max(1));
    let share = |known: &Candidate| {
        let weight = u64::from(known.weight / divisor.max(1));
        if most <= SHARES_MAX { weight } else { (weight * SHARES_MAX / most).max(1) }
    };
    for turn in 0..most.min(SHARES_MAX) {
        list.extend(candidates.iter().filter(|known| share(known) > turn));
    }
}

const fn common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32]) -> Vec<usize> {
        let candidates: Vec<_> = (0..)
            .zip(weights)
            .map(|(key, weight)| Candidate {
                conn: ConnId::from_parts(0, 0),
                endpoint: EndpointKey(key),
                weight: *weight,
            })
            .collect();
        let mut list = Vec::new();
        spread(&candidates, &mut list);
        candidates
            .iter()
            .map(|one| list.iter().filter(|other| other.endpoint == one.endpoint).count())
            .collect()
    }

    #[test]
    fn a_connection_stands_in_the_list_as_often_as_its_weight_asks_for_and_no_more_than_needed() {
        assert_eq!(shares(&[]), [0; 0]);
        assert_eq!(shares(&[7, 7, 7]), [1, 1, 1]);
        assert_eq!(shares(&[100, 200, 300]), [1, 2, 3]);
        assert_eq!(shares(&[1, 1000]), [1, 16], "the smallest still has a part");
        assert_eq!(shares(&[u32::MAX, 1, u32::MAX / 2]), [16, 1, 7]);
    }
}
