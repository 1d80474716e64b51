//! A call under way, on its loop.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::{ConnId, TimerKey};

use super::config::RetryConfig;
use super::endpoint::EndpointKey;
use crate::completion::Completion;
use crate::method::MethodInfo;
use crate::status::{Code, Executed, Status};
use crate::wire::Entry;

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// It waits for a connection.
    Waiting,
    /// It was sent there.
    Sent { conn: ConnId, endpoint: EndpointKey },
    /// It waits for its next try.
    Backoff(TimerKey),
}

pub(super) struct Live {
    pub(super) method: &'static MethodInfo,
    pub(super) body: Bytes,
    pub(super) metadata: Vec<Entry>,
    pub(super) deadline: Option<Instant>,
    pub(super) timer: Option<TimerKey>,
    /// Whether it waits for an endpoint when there is none.
    pub(super) waits: bool,
    pub(super) retries: bool,
    /// Tries so far.
    pub(super) attempts: u32,
    /// Whether one of them may have been carried out.
    pub(super) in_doubt: bool,
    /// Where it failed last: not to be tried there first.
    pub(super) avoid: Option<EndpointKey>,
    pub(super) at: At,
    pub(super) completion: Completion,
}

impl Live {
    /// Whether a call that ended like this may be tried again, the budget aside.
    pub(super) fn may_retry(&self, status: &Status, config: &RetryConfig) -> bool {
        let repeatable = status.executed().is_surely_not()
            || (status.executed() == Executed::Unknown && self.method.idempotency.may_repeat());
        let passing = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        self.retries && self.attempts < config.attempts_max && passing && repeatable
    }

    /// The wait before the next try; `None` when the time would be over by then.
    pub(super) fn backoff(
        &self,
        config: &RetryConfig,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let doubled = config.backoff.saturating_mul(1 << self.attempts.saturating_sub(1).min(16));
        let limit = u64::try_from(doubled.min(config.backoff_max).as_micros()).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(rng.u64(0..=limit));
        self.deadline.is_none_or(|deadline| now + wait < deadline).then_some(wait)
    }

    /// A failure that happened on this side, with what is known of whether the call was carried out.
    pub(super) fn failure(&self, code: Code, why: &str) -> Status {
        if self.in_doubt || matches!(self.at, At::Sent { .. }) {
            Status::in_doubt(code, why)
        } else {
            Status::not_sent(code, why)
        }
    }

    /// What is told at the end: a try that may have been carried out stays in doubt when a later one surely was not.
    pub(super) fn final_status(&self, status: Status) -> Status {
        if self.in_doubt && status.executed().is_surely_not() {
            status.with_executed(Executed::Unknown)
        } else {
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Idempotency;

    static ONCE: MethodInfo = MethodInfo::new("a.B/Once", Idempotency::Unknown);
    static AGAIN: MethodInfo = MethodInfo::new("a.B/Again", Idempotency::Idempotent);

    fn live(method: &'static MethodInfo) -> Live {
        Live {
            method,
            body: Bytes::new(),
            metadata: Vec::new(),
            deadline: None,
            timer: None,
            waits: false,
            retries: true,
            attempts: 1,
            in_doubt: false,
            avoid: None,
            at: At::Waiting,
            completion: Completion::new(|_| {}),
        }
    }

    #[test]
    fn only_what_was_surely_not_carried_out_or_may_be_twice_is_tried_again() {
        let config = RetryConfig::default();
        let unavailable = |executed| Status::new(Code::Unavailable, "").with_executed(executed);
        for (executed, once, again) in [
            (Executed::NotSent, true, true),
            (Executed::Rejected, true, true),
            (Executed::Unknown, false, true),
            (Executed::Executed, false, false),
        ] {
            assert_eq!(live(&ONCE).may_retry(&unavailable(executed), &config), once, "{executed:?}");
            assert_eq!(live(&AGAIN).may_retry(&unavailable(executed), &config), again, "{executed:?}");
        }
        let wrong = Status::rejected(Code::InvalidArgument, "");
        assert!(!live(&AGAIN).may_retry(&wrong, &config), "it would be as wrong again");
        let tried = Live { attempts: config.attempts_max, ..live(&AGAIN) };
        assert!(!tried.may_retry(&unavailable(Executed::NotSent), &config));
        let told_not_to = Live { retries: false, ..live(&AGAIN) };
        assert!(!told_not_to.may_retry(&unavailable(Executed::NotSent), &config));
    }

    #[test]
    fn no_try_is_planned_beyond_the_deadline() {
        let (config, now) = (RetryConfig::default(), Instant::now());
        let mut rng = fastrand::Rng::with_seed(1);
        let late = Live { deadline: Some(now), ..live(&ONCE) };
        assert_eq!(late.backoff(&config, now, &mut rng), None);
        let wait = live(&ONCE).backoff(&config, now, &mut rng).unwrap();
        assert!(wait <= config.backoff);
    }

    #[test]
    fn doubt_does_not_go_away_by_a_later_refusal() {
        let doubtful = Live { in_doubt: true, ..live(&AGAIN) };
        let status = doubtful.final_status(Status::rejected(Code::ResourceExhausted, ""));
        assert_eq!(status.executed(), Executed::Unknown);
        assert_eq!(doubtful.failure(Code::DeadlineExceeded, "").executed(), Executed::Unknown);
    }
}
