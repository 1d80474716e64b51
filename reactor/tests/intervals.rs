//! Timers that fire again and again, and tasks of the loop that run later.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use reactor::{EventLoop, EventLoopThreadPool, LoopConfig, ServiceConfig};
use support::{BOUND, Bench, Event, lines};

#[test]
fn an_interval_fires_until_it_is_cancelled_and_keeps_its_key() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        let mut left = 4;
        lines(log).on_timer(move |cx, fired| {
            left -= 1;
            if left == 0 {
                cx.cancel_timer(fired.key);
            }
        })
    });
    bench.post(|cx| {
        cx.set_interval(Duration::from_millis(2), 7);
        cx.set_timer(Duration::from_millis(60), 8);
    });
    let mut fired = Vec::new();
    bench.turn_until("the last timer", |bench| {
        fired.extend(bench.told.rest());
        fired.contains(&Event::Timer(8))
    });
    assert_eq!(fired, [7, 7, 7, 7, 8].map(Event::Timer));
}

#[test]
fn an_interval_that_was_missed_does_not_come_in_a_burst() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    bench.post(|cx| {
        cx.set_interval(Duration::from_millis(1), 1);
    });
    bench.turn_for(|event| *event == Event::Timer(1));
    // What a blocked loop would miss: some thirty firings.
    std::thread::sleep(Duration::from_millis(30));
    bench.told.rest();
    bench.turn();
    assert_eq!(bench.told.rest().len(), 1);
}

#[test]
fn tasks_of_a_loop_run_in_the_order_of_their_times_and_not_when_cancelled() {
    let mut event_loop = EventLoop::new(LoopConfig::default()).unwrap();
    let ran = Rc::new(RefCell::new(Vec::new()));
    let note = |number: u32| {
        let ran = Rc::clone(&ran);
        move |_: &mut EventLoop| ran.borrow_mut().push(number)
    };
    event_loop.run_after(Duration::from_millis(9), note(2));
    event_loop.run_after(Duration::ZERO, note(1));
    let cancelled = event_loop.run_after(Duration::from_millis(3), note(9));
    assert!(event_loop.cancel_task(cancelled) && !event_loop.cancel_task(cancelled));
    let done = Rc::new(Cell::new(false));
    let end = Rc::clone(&done);
    event_loop.run_after(Duration::from_millis(20), move |event_loop| {
        // From inside a task as well.
        event_loop.run_after(Duration::ZERO, move |_| end.set(true));
    });
    let deadline = Instant::now() + BOUND;
    while !done.get() {
        assert!(Instant::now() < deadline);
        event_loop.turn(Some(Duration::from_millis(5))).unwrap();
    }
    assert_eq!(*ran.borrow(), [1, 2]);
}

#[test]
fn a_task_for_later_can_be_posted_from_another_thread() {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let (tell, told) = unbounded();
    let posted = Instant::now();
    pool.handles()[0]
        .post_after(Duration::from_millis(20), move |event_loop| {
            tell.send((event_loop.handle().is_loop_thread(), posted.elapsed())).unwrap();
        })
        .unwrap();
    let (on_the_loop, after) = told.recv_timeout(BOUND).unwrap();
    assert!(on_the_loop && after >= Duration::from_millis(20), "{after:?}");
}
