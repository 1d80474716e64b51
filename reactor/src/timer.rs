//! Timers of one loop: a hierarchical timing wheel.
//!
//! Ticks are milliseconds since the wheel was made. A deadline is rounded up to a tick and `now` is rounded down, so
//! nothing fires early. Each of the six levels has 64 slots; a slot of level *n* stands for 64^*n* ticks. A timer
//! lies on the level of the highest base-64 digit in which its tick differs from the current one, in the slot of that
//! digit. So all timers of a level are due before any of a higher one, and the next thing to happen is always the
//! first slot in use of the lowest level in use: two trailing-zero counts. When the time of a slot above level 0 comes,
//! its timers move down; each does so once per level at most. What lies beyond the last level (over two years) waits
//! in a list of its own.
//!
//! The wheel reads no clock: `now` is the caller's, and a `now` before an earlier one changes nothing.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const TICK_NANOS: u64 = 1_000_000;
/// Bits of a tick that the levels cover together.
const WHEEL_BITS: u32 = 36;
/// The list of timers beyond the last level; the lists before it are the slots, level by level.
const FAR: usize = LEVELS * SLOTS;
/// Not on a list but due, waiting in `due`.
const DUE: u16 = 385;
/// No entry.
const NONE: u32 = u32::MAX;

const _: () = assert!(SLOT_BITS as usize * LEVELS == WHEEL_BITS as usize && SLOTS == u64::BITS as usize);
const _: () = assert!(DUE as usize == FAR + 1);

/// The name of a timer. It outlives its timer harmlessly: no later timer has the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerKey {
    /// How often the entry had been given out. An entry that ran through all numbers is retired.
    generation: NonZeroU32,
    slot: u32,
}

/// Timers with a `T` each, which is handed back when the timer is due or cancelled.
pub(crate) struct TimerWheel<T> {
    origin: Instant,
    /// Everything up to this tick is due.
    current: u64,
    /// The first entry of each list.
    lists: [u32; FAR + 1],
    /// Which slots of a level are in use, one bit each.
    used: [u64; LEVELS],
    entries: Vec<Entry<T>>,
    /// The first entry that is free; those after it are linked by `next`.
    free: u32,
    /// Timers not yet popped or cancelled, due ones included.
    len: usize,
    next_number: NonZeroU64,
    /// What is due, in order, from `due_next` on. May name timers that were cancelled since.
    due: Vec<Due>,
    due_next: usize,
    /// How many of those are not cancelled.
    due_len: usize,
}

struct Entry<T> {
    /// `None` when the entry is free.
    value: Option<T>,
    generation: NonZeroU32,
    /// Which of all timers this is, in the order in which they were set.
    number: NonZeroU64,
    /// Nanoseconds since the wheel's origin.
    deadline: u64,
    prev: u32,
    next: u32,
    /// Which list this is on, or `DUE`.
    list: u16,
}

/// Compared by deadline, then by age.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Due {
    deadline: u64,
    number: NonZeroU64,
    key: TimerKey,
}

impl<T> TimerWheel<T> {
    /// A wheel without timers, at the time `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            current: 0,
            lists: [NONE; FAR + 1],
            used: [0; LEVELS],
            entries: Vec::new(),
            free: NONE,
            len: 0,
            next_number: NonZeroU64::MIN,
            due: Vec::new(),
            due_next: 0,
            due_len: 0,
        }
    }

    /// Sets a timer. It becomes due with the first [`advance`](Self::advance) to its deadline, rounded up to a tick;
    /// when that tick has been reached already, to the tick after the one reached. So a timer that sets itself anew
    /// with no delay fires once per tick, and the loop sleeps in between.
    pub(crate) fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let number = self.next_number;
        // 2^64 timers are 584 years of one each nanosecond.
        self.next_number = number.saturating_add(1);
        let since = deadline.saturating_duration_since(self.origin).as_nanos();
        let deadline = u64::try_from(since).unwrap_or(u64::MAX);
        let key = self.allocate(value, number, deadline);
        self.len += 1;
        self.place(key.slot, tick_of(deadline).max(self.current + 1));
        key
    }

    /// Takes a timer back, also one that is due and not yet popped. `None` when it was popped or cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let list = self.entry(key)?.list;
        if list == DUE {
            self.due_len -= 1;
        } else {
            self.unlink(key.slot);
        }
        self.release(key.slot)
    }

    /// When a timer is to fire, as it was given but never before the wheel was made; `None` when it was popped or
    /// cancelled.
    #[cfg(test)]
    pub(crate) fn deadline(&self, key: TimerKey) -> Option<Instant> {
        self.origin.checked_add(Duration::from_nanos(self.entry(key)?.deadline))
    }

    /// Makes due, in the order of their deadlines, what has its time by `now`. What is inserted from here on waits
    /// for a later call.
    #[cfg(test)]
    pub(crate) fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.origin).as_nanos() / u128::from(TICK_NANOS);
        self.advance_to(u64::try_from(since).unwrap_or(u64::MAX));
    }

    /// The same, up to a tick: the whole milliseconds from the wheel's origin until now.
    #[inline]
    pub(crate) fn advance_to(&mut self, target: u64) {
        if target > self.current {
            self.advance_far(target);
        }
    }

    fn advance_far(&mut self, target: u64) {
        if self.due_len == 0 {
            self.due.clear();
            self.due_next = 0;
        }
        let before = self.due.len();
        while let Some((list, tick)) = self.next_list()
            && tick <= target
        {
            self.current = tick;
            self.empty(list);
        }
        self.current = target;
        if let Some(due) = self.due.get_mut(before..) {
            due.sort_unstable_by_key(|due| (due.deadline, due.number));
        }
    }

    /// The next timer that is due, which is then no timer any more. Unless `period` gives it one: then it is set anew under the same name, a whole number of
    /// periods after its last deadline, the first that is still to come.
    pub(crate) fn pop_due(&mut self, period: impl Fn(&T) -> Option<Duration>) -> Option<(TimerKey, T)>
    where
        T: Clone,
    {
        loop {
            let due = *self.due.get(self.due_next)?;
            self.due_next += 1;
            let Some(entry) = self.entry(due.key) else { continue };
            let again = entry.value.as_ref().and_then(&period);
            self.due_len -= 1;
            let value = match again {
                Some(period) => self.again(due.key, period),
                None => self.release(due.key.slot),
            };
            return value.map(|value| (due.key, value));
        }
    }

    /// Sets a due timer anew, and gives a copy of its value.
    fn again(&mut self, key: TimerKey, period: Duration) -> Option<T>
    where
        T: Clone,
    {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        let now = self.current.saturating_mul(TICK_NANOS);
        let entry = self.entries.get_mut(key.slot as usize)?;
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(TICK_NANOS);
        let missed = now.saturating_sub(entry.deadline) / period;
        entry.deadline = entry.deadline.saturating_add(period.saturating_mul(missed + 1));
        entry.number = number;
        let (tick, value) = (tick_of(entry.deadline), entry.value.clone());
        self.place(key.slot, tick.max(self.current + 1));
        value
    }

    /// Until when the loop may sleep; `None` without timers. Never later than the tick of the earliest timer, and not
    /// in the future when something is due. Earlier than that tick at most once per level.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let tick = if self.has_due() { self.current } else { self.next_list()?.1 };
        // A tick beyond what the clock can say is as good as never.
        self.origin.checked_add(Duration::from_millis(tick))
    }

    /// How many timers there are, due ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether [`pop_due`](Self::pop_due) has something to give.
    pub(crate) fn has_due(&self) -> bool {
        self.due_len > 0
    }

    /// The list that comes first, and its tick: of a level-0 slot that of its timers, of others the first of those
    /// they stand for.
    fn next_list(&self) -> Option<(usize, u64)> {
        if self.len == 0 {
            return None;
        }
        for (level, used) in self.used.iter().enumerate() {
            if *used != 0 {
                let slot = used.trailing_zeros() as usize;
                let shift = SLOT_BITS * u32::try_from(level).unwrap_or(0);
                let above = (self.current >> (shift + SLOT_BITS)) << (shift + SLOT_BITS);
                return Some((level * SLOTS + slot, above | ((slot as u64) << shift)));
            }
        }
        let far = self.lists.last().is_some_and(|&first| first != NONE);
        far.then(|| (FAR, ((self.current >> WHEEL_BITS) + 1) << WHEEL_BITS))
    }

    /// Places the timers of a list whose tick is the current one anew: on lower levels, or among the due.
    fn empty(&mut self, list: usize) {
        let Some(first) = self.lists.get_mut(list) else { return };
        let mut slot = std::mem::replace(first, NONE);
        self.mark(list, false);
        while let Some(entry) = self.entries.get(slot as usize) {
            let (next, tick) = (entry.next, tick_of(entry.deadline));
            if tick <= self.current {
                self.make_due(slot);
            } else {
                self.place(slot, tick);
            }
            slot = next;
        }
    }

    fn make_due(&mut self, slot: u32) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.list = DUE;
            let key = TimerKey { generation: entry.generation, slot };
            self.due.push(Due { deadline: entry.deadline, number: entry.number, key });
            self.due_len += 1;
        }
    }

    /// Puts an entry on the list for a `tick` after the current one.
    fn place(&mut self, slot: u32, tick: u64) {
        let list = list_for(self.current, tick);
        let Some(first) = self.lists.get_mut(list) else { return };
        let next = std::mem::replace(first, slot);
        if let Some(next) = self.entries.get_mut(next as usize) {
            next.prev = slot;
        }
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.prev = NONE;
            entry.next = next;
            entry.list = u16::try_from(list).unwrap_or(DUE);
        }
        self.mark(list, true);
    }

    /// Takes an entry off its list.
    fn unlink(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(slot as usize) else { return };
        let (prev, next, list) = (entry.prev, entry.next, usize::from(entry.list));
        if let Some(next) = self.entries.get_mut(next as usize) {
            next.prev = prev;
        }
        if let Some(prev) = self.entries.get_mut(prev as usize) {
            prev.next = next;
        } else if let Some(first) = self.lists.get_mut(list) {
            *first = next;
            if next == NONE {
                self.mark(list, false);
            }
        }
    }

    /// Notes whether a list is in use; the list of far timers has no bit.
    fn mark(&mut self, list: usize, in_use: bool) {
        if let Some(used) = self.used.get_mut(list / SLOTS) {
            let bit = 1 << (list % SLOTS);
            if in_use {
                *used |= bit;
            } else {
                *used &= !bit;
            }
        }
    }

    /// The entry of a key, if its timer still is.
    fn entry(&self, key: TimerKey) -> Option<&Entry<T>> {
        let entry = self.entries.get(key.slot as usize)?;
        (entry.generation == key.generation && entry.value.is_some()).then_some(entry)
    }

    /// Stores a timer in the entry that was freed last, or in a new one.
    fn allocate(&mut self, value: T, number: NonZeroU64, deadline: u64) -> TimerKey {
        let slot = self.free;
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            self.free = entry.next;
            entry.value = Some(value);
            (entry.number, entry.deadline) = (number, deadline);
            return TimerKey { generation: entry.generation, slot };
        }
        #[expect(clippy::expect_used, reason = "2^32 - 1 timers of one loop take over 128 GiB")]
        let slot = u32::try_from(self.entries.len()).ok().filter(|&slot| slot != NONE).expect("timer slots");
        let generation = NonZeroU32::MIN;
        let value = Some(value);
        self.entries.push(Entry { value, generation, number, deadline, prev: NONE, next: NONE, list: DUE });
        TimerKey { generation, slot }
    }

    /// Frees an entry that is on no list.
    fn release(&mut self, slot: u32) -> Option<T> {
        let entry = self.entries.get_mut(slot as usize)?;
        let value = entry.value.take();
        // Its name is never given out again. An entry that has no further name stays unused.
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            entry.next = std::mem::replace(&mut self.free, slot);
        }
        self.len -= 1;
        value
    }
}

impl<T> fmt::Debug for TimerWheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerWheel")
            .field("len", &self.len)
            .field("due", &self.due_len)
            .finish_non_exhaustive()
    }
}

/// The first tick not before a deadline.
fn tick_of(deadline: u64) -> u64 {
    deadline.div_ceil(TICK_NANOS)
}

/// The list for a timer of `tick`, which is after `current`.
fn list_for(current: u64, tick: u64) -> usize {
    // The lowest bit is set so that there is always one, also should `tick` be `current`.
    let level = (u64::BITS - 1 - ((current ^ tick) | 1).leading_zeros()) / SLOT_BITS;
    if level >= WHEEL_BITS / SLOT_BITS {
        return FAR;
    }
    let digit = (tick >> (level * SLOT_BITS)) & 63;
    level as usize * SLOTS + digit as usize
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DAY: Duration = Duration::from_secs(86_400);

    /// A wheel and where it began.
    fn wheel<T>() -> (TimerWheel<T>, Instant) {
        let origin = Instant::now();
        (TimerWheel::new(origin), origin)
    }

    fn pop_all<T: Clone>(wheel: &mut TimerWheel<T>) -> Vec<T> {
        std::iter::from_fn(|| wheel.pop_due(|_| None)).map(|(_, value)| value).collect()
    }

    #[test]
    fn a_timer_fires_at_its_deadline_and_not_a_nanosecond_before() {
        for deadline in [MS, MS * 63, MS * 64, MS * 65, MS * 4096, MS * 300_000, DAY * 30, DAY * 2000] {
            let (mut wheel, origin) = wheel();
            let key = wheel.insert(origin + deadline, "x");
            assert_eq!(wheel.deadline(key), Some(origin + deadline));
            wheel.advance(origin + deadline - Duration::from_nanos(1));
            assert!(wheel.pop_due(|_| None).is_none(), "early: {deadline:?}");
            wheel.advance(origin + deadline);
            assert_eq!(wheel.pop_due(|_| None), Some((key, "x")));
            assert!(wheel.len() == 0 && wheel.deadline(key).is_none());
        }
    }

    #[test]
    fn a_deadline_within_a_tick_waits_for_its_end() {
        let (mut wheel, origin) = wheel();
        wheel.insert(origin + MS * 5 + Duration::from_micros(1), ());
        wheel.advance(origin + MS * 5 + Duration::from_micros(999));
        assert!(!wheel.has_due());
        assert_eq!(wheel.next_wake(), Some(origin + MS * 6));
        wheel.advance(origin + MS * 6);
        assert!(wheel.has_due());
    }

    #[test]
    fn timers_are_due_in_the_order_of_their_deadlines_then_of_their_age() {
        let (mut wheel, origin) = wheel();
        let micros = |n| origin + Duration::from_micros(n);
        for (at, name) in [(90_000, 'e'), (1_200, 'b'), (1_900, 'd'), (1_100, 'a'), (1_200, 'c')] {
            wheel.insert(micros(at), name);
        }
        wheel.advance(micros(100_000));
        assert_eq!(pop_all(&mut wheel), ['a', 'b', 'c', 'd', 'e']);
    }

    #[test]
    fn a_timer_cancelled_in_the_same_batch_does_not_fire() {
        let (mut wheel, origin) = wheel();
        wheel.insert(origin + MS, 'a');
        let second = wheel.insert(origin + MS * 2, 'b');
        wheel.insert(origin + MS * 3, 'c');
        wheel.advance(origin + MS * 10);
        assert_eq!(wheel.pop_due(|_| None).map(|due| due.1), Some('a'));
        assert_eq!(wheel.cancel(second), Some('b'));
        assert_eq!(wheel.cancel(second), None);
        assert_eq!((wheel.len(), wheel.has_due()), (1, true));
        assert_eq!(pop_all(&mut wheel), ['c']);
        assert!(wheel.len() == 0 && !wheel.has_due());
    }

    #[test]
    fn a_slot_reused_while_its_due_name_waits_does_not_fire_early() {
        let (mut wheel, origin) = wheel();
        let old = wheel.insert(origin + MS, "old");
        wheel.advance(origin + MS);
        assert_eq!(wheel.cancel(old), Some("old"));
        let new = wheel.insert(origin + MS * 9, "new");
        assert_eq!(new.slot, old.slot);
        assert_eq!((wheel.has_due(), wheel.pop_due(|_| None)), (false, None));
        assert_eq!(
            (wheel.cancel(old), wheel.deadline(old)),
            (None, None),
            "old names do not reach new timers"
        );
        wheel.advance(origin + MS * 9);
        assert_eq!(wheel.pop_due(|_| None), Some((new, "new")));
    }

    #[test]
    fn a_timer_set_while_timers_fire_waits_for_a_later_turn() {
        let (mut wheel, origin) = wheel();
        wheel.insert(origin + MS, 0);
        wheel.advance(origin + MS * 5);
        let mut fired = 0;
        while wheel.pop_due(|_| None).is_some() {
            fired += 1;
            wheel.insert(origin, fired);
        }
        assert_eq!(fired, 1);
        wheel.advance(origin + MS * 6);
        assert_eq!(pop_all(&mut wheel), [1]);
    }

    #[test]
    fn a_zero_delay_does_not_spin() {
        let (mut wheel, origin) = wheel();
        let (mut now, mut turns) = (origin + MS * 60, 0);
        wheel.advance(now);
        wheel.insert(now, ());
        while now < origin + MS * 160 {
            let wake = wheel.next_wake().unwrap();
            assert!(wake > now, "a sleep before every turn");
            now = wake;
            wheel.advance(now);
            while wheel.pop_due(|_| None).is_some() {
                turns += 1;
                wheel.insert(now, ());
            }
        }
        assert_eq!(turns, 100);
    }

    #[test]
    fn a_clock_that_goes_backwards_changes_nothing() {
        let (mut wheel, origin) = wheel();
        wheel.insert(origin + MS * 50, 'a');
        wheel.advance(origin + MS * 40);
        wheel.advance(origin + MS * 10);
        wheel.advance(origin.checked_sub(MS).unwrap_or(origin));
        wheel.insert(origin + MS * 20, 'b');
        assert_eq!(wheel.next_wake(), Some(origin + MS * 41));
        wheel.advance(origin + MS * 50);
        assert_eq!(pop_all(&mut wheel), ['b', 'a']);
    }

    #[test]
    fn what_is_due_and_not_popped_keeps_its_place_before_later_batches() {
        let (mut wheel, origin) = wheel();
        for n in 1..=4 {
            wheel.insert(origin + MS * n, n);
        }
        wheel.advance(origin + MS * 2);
        assert_eq!(wheel.next_wake(), Some(origin + MS * 2), "no sleep while something is due");
        wheel.advance(origin + MS * 4);
        assert_eq!(pop_all(&mut wheel), [1, 2, 3, 4]);
        assert_eq!(wheel.next_wake(), None);
    }

    #[test]
    fn one_far_timer_wakes_at_most_once_per_level() {
        for deadline in [MS * 7, MS * 100, MS * 5000, DAY, DAY * 365, DAY * 1000] {
            let (mut wheel, origin) = wheel();
            wheel.advance(origin + MS * 77);
            wheel.insert(origin + MS * 77 + deadline, ());
            let mut wakes = 0;
            while !wheel.has_due() {
                wheel.advance(wheel.next_wake().unwrap());
                wakes += 1;
            }
            assert!(wakes <= LEVELS + 1, "{wakes} for {deadline:?}");
        }
    }

    #[test]
    fn memory_is_reused() {
        let (mut wheel, origin) = wheel();
        let mut now = origin;
        for round in 0..1000_u32 {
            let keys: Vec<_> = (0..10).map(|n| wheel.insert(now + MS * n, n)).collect();
            assert!(wheel.cancel(keys[3]).is_some());
            now += MS * (10 + round % 90);
            wheel.advance(now);
            assert_eq!(pop_all(&mut wheel).len(), 9);
        }
        assert_eq!(wheel.entries.len(), 10);
        assert!(wheel.due.capacity() <= 16);
    }

    #[test]
    fn a_deadline_as_far_as_the_clock_reaches_is_no_trouble() {
        let (mut wheel, origin) = wheel();
        let centuries = (0..40).rev().find_map(|n| origin.checked_add(DAY * 36_500 * n)).unwrap();
        let key = wheel.insert(centuries, "far");
        wheel.insert(origin + MS, "near");
        assert_eq!(wheel.next_wake(), Some(origin + MS));
        wheel.advance(origin + DAY * 36_500);
        assert_eq!(pop_all(&mut wheel), ["near"]);
        assert!(wheel.next_wake().is_some_and(|wake| wake > origin + DAY * 36_500));
        assert_eq!(wheel.cancel(key), Some("far"));
    }
}
