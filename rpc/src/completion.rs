//! The end of a call: a closure that runs exactly once, whatever happens.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::status::{Code, Status};

/// How a call ended: the bytes of its answer, or why there are none.
pub(crate) type Outcome<'a> = Result<&'a [u8], Status>;

type Tell = Box<dyn FnOnce(Outcome<'_>) + Send>;

/// Runs its closure exactly once: when it is told the outcome, or, when it is dropped untold, with an error.
pub(crate) struct Completion {
    tell: Option<Tell>,
    /// Whether the request has left, so that a call that is dropped is in doubt.
    pub(crate) sent: bool,
}

impl Completion {
    pub(crate) fn new(tell: impl FnOnce(Outcome<'_>) + Send + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), sent: false }
    }

    pub(crate) fn complete(mut self, outcome: Outcome<'_>) {
        self.run(outcome);
    }

    fn run(&mut self, outcome: Outcome<'_>) {
        let Some(tell) = self.tell.take() else { return };
        // The closure is the caller's. Its panic is its own affair and must not cost the connection.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(outcome)));
        if ran.is_err() {
            log::error!("the callback of a call panicked");
        }
    }
}

thread_local! {
    /// Ends of calls that this thread is to run when the one that it runs has returned.
    static BEHIND: RefCell<Option<VecDeque<(Completion, Status)>>> = const { RefCell::new(None) };
}

/// Ends a call that could not even begin, on the caller's own thread. A callback that answers with another call of the same fate does not run inside the
/// first, but after it: whoever tries again and again does not run out of stack.
pub(crate) fn fail_here(completion: Completion, status: Status) {
    let first = BEHIND.with_borrow_mut(|behind| match behind {
        Some(behind) => {
            behind.push_back((completion, status));
            None
        }
        None => {
            *behind = Some(VecDeque::new());
            Some((completion, status))
        }
    });
    let mut next = first;
    while let Some((completion, status)) = next {
        completion.complete(Err(status));
        next = BEHIND.with_borrow_mut(|behind| {
            let next = behind.as_mut().and_then(VecDeque::pop_front);
            if next.is_none() {
                *behind = None;
            }
            next
        });
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if self.tell.is_some() {
            const WHY: &str = "the channel has ended";
            let status = if self.sent {
                Status::in_doubt(Code::Unavailable, WHY)
            } else {
                Status::not_sent(Code::Unavailable, WHY)
            };
            self.run(Err(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Executed;

    #[test]
    fn a_completion_runs_once_and_also_when_it_is_dropped() {
        let (tell, told) = crossbeam_channel::unbounded();
        let make = || {
            let tell = tell.clone();
            Completion::new(move |outcome| tell.send(outcome.map(<[u8]>::to_vec)).unwrap())
        };
        make().complete(Ok(b"x"));
        drop(make());
        let mut sent = make();
        sent.sent = true;
        drop(sent);
        let all: Vec<_> = told.try_iter().collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], Ok(b"x".to_vec()));
        assert_eq!(all[1].as_ref().unwrap_err().executed(), Executed::NotSent);
        assert_eq!(all[2].as_ref().unwrap_err().executed(), Executed::Unknown);
    }

    #[test]
    fn a_callback_that_calls_again_and_again_does_not_nest() {
        fn again(left: u32, end: crossbeam_channel::Sender<()>) {
            let status = Status::not_sent(Code::Unavailable, "");
            let completion = Completion::new(move |_| match left {
                0 => end.send(()).unwrap(),
                _ => again(left - 1, end),
            });
            fail_here(completion, status);
        }
        let (tell, told) = crossbeam_channel::unbounded();
        again(1_000_000, tell);
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn a_callback_that_panics_harms_nobody() {
        Completion::new(|_| panic!("a test's panic")).complete(Ok(b""));
    }
}
