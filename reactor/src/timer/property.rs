//! The wheel against a model: whatever is inserted, cancelled and awaited, in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Insert(Duration),
    InsertPast(Duration),
    Cancel(prop::sample::Index),
    Advance(Duration),
    AdvanceToWake,
    Pop(usize),
}

/// Spans of every size, from nanoseconds to far beyond the last level.
fn span() -> impl Strategy<Value = Duration> {
    let nanos = |most: u64| (0..most).prop_map(Duration::from_nanos);
    let millis = |most: u64| (0..most).prop_map(Duration::from_millis);
    prop_oneof![
        nanos(3_000_000),
        millis(200),
        nanos(10_000_000_000),
        millis(1 << 19),
        millis(1 << 31),
        millis(1 << 38),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => span().prop_map(Step::Insert),
        1 => span().prop_map(Step::InsertPast),
        2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        3 => span().prop_map(Step::Advance),
        3 => Just(Step::AdvanceToWake),
        2 => (0..4usize).prop_map(Step::Pop),
    ]
}

/// What the wheel promises, said in the plainest way. Times are since the origin.
#[derive(Default)]
struct Model {
    /// Timers that wait, by number: tick at which they are due, deadline.
    waiting: BTreeMap<u32, (u64, Duration)>,
    /// Those that are due: batch, deadline, number.
    due: BTreeMap<(u32, Duration, u32), ()>,
    batch: u32,
    reached: u64,
}

impl Model {
    fn insert(&mut self, number: u32, deadline: Duration) {
        let tick = u64::try_from(deadline.as_nanos().div_ceil(1_000_000)).unwrap();
        self.waiting.insert(number, (tick.max(self.reached + 1), deadline));
    }

    fn cancel(&mut self, number: u32) -> bool {
        let due = self.due.keys().find(|due| due.2 == number).copied();
        due.is_some_and(|due| self.due.remove(&due).is_some()) || self.waiting.remove(&number).is_some()
    }

    fn advance(&mut self, now: Duration) {
        self.reached = self.reached.max(u64::try_from(now.as_millis()).unwrap());
        self.batch += 1;
        let (reached, batch) = (self.reached, self.batch);
        for (number, (_, deadline)) in self.waiting.extract_if(.., |_, timer| timer.0 <= reached) {
            self.due.insert((batch, deadline, number), ());
        }
    }

    fn earliest(&self) -> Option<u64> {
        if self.due.is_empty() {
            self.waiting.values().map(|timer| timer.0).min()
        } else {
            Some(self.reached)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_early_late_lost_or_twice(
        start in span(), steps in prop::collection::vec(step(), 0..120)
    ) {
        let origin = Instant::now();
            let mut wheel = TimerWheel::new(origin);
        let (mut model, mut now) = (Model::default(), start);
        wheel.advance(origin + now);
        model.advance(now);
        let mut keys = Vec::new();
        let mut popped = Vec::new();
        for step in steps {
            match step {
                Step::Insert(_) | Step::InsertPast(_) => {
                    let deadline = match step {
                        Step::InsertPast(span) => now.saturating_sub(span),
                        Step::Insert(span) => now + span,
                        _ => now,
                    };
                    let number = u32::try_from(keys.len()).unwrap();
                    keys.push(wheel.insert(origin + deadline, number));
                    model.insert(number, deadline);
                    prop_assert_eq!(wheel.deadline(keys[keys.len() - 1]), Some(origin + deadline));
                }
                Step::Cancel(index) if !keys.is_empty() => {
                    let number = index.index(keys.len());
                    let cancelled = wheel.cancel(keys[number]);
                    let number = u32::try_from(number).unwrap();
                    prop_assert_eq!(cancelled, model.cancel(number).then_some(number));
                }
                Step::Cancel(_) => {}
                Step::Advance(span) => {
                    now += span;
                    wheel.advance(origin + now);
                    model.advance(now);
                }
                Step::AdvanceToWake => if let Some(wake) = wheel.next_wake() {
                    now = now.max(wake - origin);
                    wheel.advance(origin + now);
                    model.advance(now);
                }
                Step::Pop(count) => for _ in 0..count {
                    let expected = model.due.pop_first().map(|((.., number), ())| number);
                    let due = wheel.pop_due(|_| None);
                    prop_assert_eq!(due.map(|(_, number)| number), expected);
                    if let Some((key, number)) = due {
                        prop_assert_eq!(key, keys[usize::try_from(number).unwrap()]);
                        popped.push(number);
                    }
                }
            }
            prop_assert_eq!(wheel.len(), model.waiting.len() + model.due.len());
            prop_assert_eq!(wheel.has_due(), !model.due.is_empty());
            let wake = wheel.next_wake().map(|wake| wake - origin);
            let latest = model.earliest().map(Duration::from_millis);
            prop_assert_eq!(wake.is_some(), latest.is_some());
            prop_assert!(wake <= latest, "woken too late");
            prop_assert!(wheel.has_due() || wake.is_none_or(|wake| wake > now), "spins");
        }
        // Whatever is left comes by sleeping as `next_wake` says, each timer within its tick.
        while let Some(wake) = wheel.next_wake() {
            now = now.max(wake - origin);
            wheel.advance(origin + now);
            model.advance(now);
            while let Some((_, number)) = wheel.pop_due(|_| None) {
                prop_assert_eq!(model.due.pop_first().map(|((.., number), ())| number), Some(number));
                popped.push(number);
            }
            prop_assert!(model.due.is_empty());
        }
        prop_assert!(model.waiting.is_empty());
        let fired = popped.len();
        popped.sort_unstable();
        popped.dedup();
        prop_assert_eq!(popped.len(), fired);
    }
}
