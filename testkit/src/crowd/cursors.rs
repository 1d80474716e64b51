//! How far a client has a conversation, over all its connections.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{ConvNumber, SeqNumber};

/// One conversation.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Everything up to here has arrived.
    complete: SeqNumber,
    /// What has arrived beyond.
    beyond: BTreeSet<SeqNumber>,
    /// The last `ack`.
    acked: SeqNumber,
}

/// All conversations of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursors {
    places: BTreeMap<ConvNumber, Place>,
}

impl Cursors {
    /// This conversation is had up to `seq`, whatever came before.
    pub(super) fn begin(&mut self, conv: ConvNumber, seq: SeqNumber) {
        self.places.insert(conv, Place { complete: seq, beyond: BTreeSet::new(), acked: seq });
    }

    /// Something arrived. A conversation that is new begins at 0.
    pub(super) fn place(&mut self, conv: ConvNumber, seq: SeqNumber) {
        let place = self.places.entry(conv).or_default();
        if seq > place.complete {
            place.beyond.insert(seq);
        }
        while place.beyond.remove(&(place.complete + 1)) {
            place.complete += 1;
        }
    }

    /// How far each is complete: where a new connection's streams are to start.
    pub(super) fn all(&self) -> BTreeMap<ConvNumber, SeqNumber> {
        self.places.iter().map(|(conv, place)| (*conv, place.complete)).collect()
    }

    /// How far this one is complete.
    pub(super) fn complete(&self, conv: ConvNumber) -> SeqNumber {
        self.places.get(&conv).map_or(0, |place| place.complete)
    }

    /// What is to be acknowledged; it counts as done.
    pub(super) fn take_acks(&mut self) -> Vec<(ConvNumber, SeqNumber)> {
        let mut acks = Vec::new();
        for (conv, place) in &mut self.places {
            if place.complete > place.acked {
                place.acked = place.complete;
                acks.push((*conv, place.complete));
            }
        }
        acks
    }

    /// A new connection: what was acknowledged on the old one may not have arrived, and what came beyond a hole will come again.
    pub(super) fn reconnect(&mut self) {
        for place in self.places.values_mut() {
            place.beyond.clear();
            place.acked = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_stops_before_a_hole_and_jumps_when_it_is_filled() {
        let mut cursors = Cursors::default();
        cursors.begin(5, 10);
        for seq in [11, 14, 13] {
            cursors.place(5, seq);
        }
        assert_eq!((cursors.complete(5), cursors.complete(6)), (11, 0));
        assert_eq!(cursors.take_acks(), [(5, 11)]);
        assert_eq!(cursors.take_acks(), []);
        cursors.place(5, 12);
        cursors.place(6, 1);
        assert_eq!(cursors.all(), BTreeMap::from([(5, 14), (6, 1)]));
        cursors.place(5, 16);
        cursors.reconnect();
        cursors.place(5, 15);
        assert_eq!(cursors.complete(5), 15);
    }
}
