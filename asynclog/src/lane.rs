//! A lane: the bounded buffer between one thread and the log thread, with the numbers of the thread's records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::Level;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::frame::{self, Peek};
use crate::stats::{LevelCounters, LevelCounts, ThreadStats};
use crate::waits::Waits;

/// What both ends of a lane see, and `stats()`.
#[derive(Debug)]
pub(crate) struct LaneState {
    /// Not given again while the log lives.
    pub(crate) number: u32,
    pub(crate) label: String,
    /// Records that got a number so far, which begin at 1. Behind the push, so that what it counts and is not in the buffer was refused.
    numbered: AtomicU64,
    /// For want of room, by level; and when first and last since it was told, in microseconds, 0 for never.
    refused: LevelCounters,
    refused_first: AtomicI64,
    refused_last: AtomicI64,
    /// Its thread waits for room.
    waits: Waits,
    room: Sender<()>,
}

impl LaneState {
    pub(crate) fn numbered(&self) -> u64 {
        self.numbered.load(Ordering::Acquire)
    }

    pub(crate) fn stats(&self) -> ThreadStats {
        // First the part, then the whole.
        let refused_by_level = self.refused.get();
        ThreadStats {
            thread: self.label.clone(),
            number: self.number,
            produced: self.numbered().max(refused_by_level.total()),
            refused_by_level,
        }
    }
}

/// The caller's end. Belongs to one thread, or is locked.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Arc<LaneState>,
    ring: Producer<u8>,
    room: Receiver<()>,
    last: u64,
}

/// The log thread's end.
#[derive(Debug)]
pub(crate) struct LaneReader {
    pub(crate) state: Arc<LaneState>,
    ring: Consumer<u8>,
    /// The number that was taken last, or known to be refused.
    last: u64,
    /// The latest time taken: a clock that is stepped back does not change the order within a thread.
    latest: i64,
    /// Numbers that were refused and not yet told, as first and last.
    gaps: VecDeque<(u64, u64)>,
    said: LevelCounts,
}

/// What was refused and is to be told.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) gaps: Vec<(u64, u64)>,
    pub(crate) by_level: LevelCounts,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A lane of `bytes`.
pub(crate) fn lane(number: u32, label: String, bytes: usize) -> (Lane, LaneReader) {
    let (ring, taken) = RingBuffer::new(bytes);
    let (signal, room) = bounded(1);
    let state = Arc::new(LaneState {
        number,
        label,
        numbered: AtomicU64::new(0),
        refused: LevelCounters::default(),
        refused_first: AtomicI64::new(0),
        refused_last: AtomicI64::new(0),
        waits: Waits::new(),
        room: signal,
    });
    let reader = LaneReader {
        state: Arc::clone(&state),
        ring: taken,
        last: 0,
        latest: i64::MIN,
        gaps: VecDeque::new(),
        said: LevelCounts::default(),
    };
    (Lane { state, ring, room, last: 0 }, reader)
}

impl Lane {
    /// Nobody takes anything out of it any more.
    pub(crate) fn is_left(&self) -> bool {
        self.ring.is_abandoned()
    }

    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.ring.cached_slots() >= bytes || self.ring.slots() >= bytes
    }

    /// Waits for room, but no longer than `at_most`; `wake` wakes the log thread, and is false when there is none.
    pub(crate) fn wait_for_room(&self, bytes: usize, at_most: Duration, wake: impl Fn() -> bool) -> bool {
        let until = Instant::now().checked_add(at_most);
        loop {
            self.state.waits.announce();
            if self.has_room(bytes) {
                return true;
            }
            if !wake() {
                return false;
            }
            let woken = match until {
                Some(until) => self.room.recv_deadline(until).is_ok(),
                None => self.room.recv().is_ok(),
            };
            if !woken {
                return self.has_room(bytes);
            }
        }
    }

    /// Gives a frame its number and puts it in; true when more than half of the lane is used since this frame. There must be room.
    pub(crate) fn push(&mut self, frame: &mut [u8]) -> bool {
        self.last += 1;
        frame::set_number(frame, self.last);
        let _ = self.ring.push_entire_slice(frame);
        self.state.numbered.store(self.last, Ordering::Release);
        let half = self.ring.buffer().capacity() / 2;
        // What is known is never more than what is free, and costs no look at what the log thread writes.
        let known = self.ring.cached_slots();
        let after = if known < half { self.ring.slots() } else { known };
        after < half && after + frame.len() >= half
    }

    /// Gives a number to a record for which there is no room.
    pub(crate) fn refuse(&mut self, level: Level, now: i64) {
        let state = &self.state;
        state.refused.add(level);
        let _ = state.refused_first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        state.refused_last.store(now, Ordering::Relaxed);
        self.last += 1;
        state.numbered.store(self.last, Ordering::Release);
    }
}

impl LaneReader {
    /// Moves all whole frames to the end of `arena`, and wakes the thread if it waits.
    pub(crate) fn take_into(&mut self, arena: &mut Vec<u8>) {
        let ready = self.ring.slots();
        if ready == 0 {
            return;
        }
        if let Ok(chunk) = self.ring.read_chunk(ready) {
            let (head, tail) = chunk.as_slices();
            arena.extend_from_slice(head);
            arena.extend_from_slice(tail);
            chunk.commit_all();
        }
        if self.state.waits.take() {
            let _ = self.state.room.try_send(());
        }
    }

    /// Notes a frame that was taken; says by what time it stands in the order.
    pub(crate) fn note(&mut self, frame: Peek) -> i64 {
        self.note_gap(frame.number);
        self.last = self.last.max(frame.number);
        self.latest = self.latest.max(frame.micros);
        self.latest
    }

    /// What is numbered and neither taken nor in the buffer was refused.
    fn note_tail(&mut self) {
        let numbered = self.state.numbered();
        if self.ring.is_empty() && numbered > self.last {
            self.note_gap(numbered + 1);
            self.last = numbered;
        }
    }

    fn note_gap(&mut self, next: u64) {
        let first = self.last + 1;
        if next <= first {
            return;
        }
        match self.gaps.back_mut() {
            Some((_, last)) if *last + 1 == first => *last = next - 1,
            _ => self.gaps.push_back((first, next - 1)),
        }
    }

    /// The last number that is accounted for.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// What was refused since the last time, in portions of at most `ranges_max` ranges. By level it is what is counted up to now, which can be a little
    /// ahead of the ranges.
    pub(crate) fn take_refused(&mut self, ranges_max: usize) -> Option<Refused> {
        self.note_tail();
        if self.gaps.is_empty() {
            return None;
        }
        let counted = self.state.refused.get();
        let by_level = counted.minus(&self.said);
        self.said = counted;
        let to = self.state.refused_last.load(Ordering::Relaxed);
        let from = match self.state.refused_first.swap(0, Ordering::Relaxed) {
            0 => to,
            first => first,
        };
        let gaps = self.gaps.drain(..self.gaps.len().min(ranges_max)).collect();
        Some(Refused { gaps, by_level, from, to })
    }

    /// The thread is gone, and all it left is taken.
    pub(crate) fn is_over(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        let mut frame = vec![0; frame::HEAD];
        let args = format_args!("{text}");
        let record = log::Record::builder().args(args).build();
        crate::compose::compose(&mut frame, &record, 8192, crate::Format::Text);
        frame
    }

    fn take(reader: &mut LaneReader) -> Vec<u64> {
        let mut arena = Vec::new();
        reader.take_into(&mut arena);
        let mut numbers = Vec::new();
        let mut rest = arena.as_slice();
        while let Some(frame) = Peek::of(rest) {
            reader.note(frame);
            numbers.push(frame.number);
            rest = &rest[frame.bytes..];
        }
        numbers
    }

    #[test]
    fn what_is_refused_is_known_by_its_numbers() {
        let mut one = frame("x");
        let (mut lane, mut reader) = lane(1, "main".into(), 2 * one.len());
        lane.push(&mut one);
        lane.push(&mut one);
        assert!(!lane.has_room(one.len()));
        lane.refuse(Level::Warn, 7);
        lane.refuse(Level::Info, 9);
        assert_eq!(take(&mut reader), [1, 2]);
        lane.push(&mut one);
        assert_eq!(take(&mut reader), [5]);
        lane.refuse(Level::Info, 11);
        let refused = reader.take_refused(9).unwrap();
        assert_eq!(refused.gaps, [(3, 4), (6, 6)]);
        assert_eq!((refused.by_level.warn, refused.by_level.info), (1, 2));
        assert_eq!((refused.from, refused.to), (7, 11));
        assert!(reader.take_refused(9).is_none());
    }

    #[test]
    fn frames_that_wrap_round_the_buffer_come_out_whole() {
        let (mut lane, mut reader) = lane(1, "main".into(), 200);
        for round in 0..1000_u64 {
            let mut frame = frame(&"y".repeat(usize::try_from(round % 60).unwrap()));
            assert!(lane.has_room(frame.len()));
            lane.push(&mut frame);
            assert_eq!(take(&mut reader), [round + 1]);
        }
    }

    #[test]
    fn a_lane_is_over_when_its_thread_is_gone_and_all_is_taken() {
        let (mut lane, mut reader) = lane(1, "main".into(), 200);
        lane.push(&mut frame("x"));
        drop(lane);
        assert!(!reader.is_over());
        assert_eq!(take(&mut reader), [1]);
        assert!(reader.is_over());
    }

    #[test]
    fn a_clock_stepped_back_does_not_change_a_threads_order() {
        let (_lane, mut reader) = lane(1, "main".into(), 200);
        let at = |micros, number| Peek { micros, number, bytes: frame::HEAD };
        assert_eq!([reader.note(at(50, 1)), reader.note(at(10, 2)), reader.note(at(60, 3))], [50, 50, 60]);
    }
}
