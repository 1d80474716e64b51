//! How a call ended, when it did not end well.

use std::fmt;

/// The status codes of gRPC, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// All is well. No error has this code.
    Ok = 0,
    /// The caller gave the call up.
    Cancelled = 1,
    /// None of the others fits.
    Unknown = 2,
    /// The request makes no sense, whatever the state of the server.
    InvalidArgument = 3,
    /// The time was over before there was an answer.
    DeadlineExceeded = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// What was to be made exists already.
    AlreadyExists = 6,
    /// The caller may not do that.
    PermissionDenied = 7,
    /// Something is used up: a quota, a queue, room.
    ResourceExhausted = 8,
    /// The state of things does not allow it now.
    FailedPrecondition = 9,
    /// Somebody else was faster; trying the whole again may help.
    Aborted = 10,
    /// Past the end of something.
    OutOfRange = 11,
    /// The server does not know the method.
    Unimplemented = 12,
    /// The server broke.
    Internal = 13,
    /// Nobody can be reached who would do it; later somebody may.
    Unavailable = 14,
    /// Data is gone for good.
    DataLoss = 15,
    /// The caller has not said who it is.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code of this number; [`Code::Unknown`] for a number that is none.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        let found = usize::try_from(number).ok().and_then(|at| Self::ALL.get(at));
        found.copied().unwrap_or(Self::Unknown)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its name, as in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data_loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a call that failed was carried out: what decides whether it may be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Executed {
    /// It may have been.
    #[default]
    Unknown,
    /// It never left this process.
    NotSent,
    /// The server refused it before its handler ran.
    Rejected,
    /// The handler ran, and this is what it answered.
    Executed,
}

impl Executed {
    /// Whether the call was surely not carried out.
    #[must_use]
    pub const fn is_surely_not(self) -> bool {
        matches!(self, Self::NotSent | Self::Rejected)
    }
}

impl From<crate::wire::Executed> for Executed {
    fn from(executed: crate::wire::Executed) -> Self {
        match executed {
            crate::wire::Executed::Unknown => Self::Unknown,
            crate::wire::Executed::NotSent => Self::NotSent,
            crate::wire::Executed::Rejected => Self::Rejected,
            crate::wire::Executed::Executed => Self::Executed,
        }
    }
}

impl From<Executed> for crate::wire::Executed {
    fn from(executed: Executed) -> Self {
        match executed {
            Executed::Unknown => Self::Unknown,
            Executed::NotSent => Self::NotSent,
            Executed::Rejected => Self::Rejected,
            Executed::Executed => Self::Executed,
        }
    }
}

/// Why a call failed, and whether it was carried out all the same.
///
/// ```
/// use rpc::{Code, Status};
///
/// let status = Status::new(Code::NotFound, "no user of this name").with_details(&b"amy"[..]);
/// assert_eq!(status.to_string(), "not_found: no user of this name");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    executed: Executed,
    message: Box<str>,
    details: Box<[u8]>,
}

impl Status {
    /// A failure of this kind. A handler that answers with it has run, and the caller is told so.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into().into_boxed_str();
        Self { code, executed: Executed::Executed, message, details: Box::default() }
    }

    /// The same with something for programs to read.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Vec<u8>>) -> Self {
        self.details = details.into().into_boxed_slice();
        self
    }

    /// The same with another answer to whether it was carried out. A handler that did nothing yet may say [`Executed::Rejected`]: the call can then
    /// be tried elsewhere.
    #[must_use]
    pub fn with_executed(mut self, executed: Executed) -> Self {
        self.executed = executed;
        self
    }

    /// What a server says that does not know the method.
    #[must_use]
    pub fn unimplemented() -> Self {
        Self::rejected(Code::Unimplemented, "the server does not know this method")
    }

    /// A refusal before the handler ran.
    #[must_use]
    pub fn rejected(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, message).with_executed(Executed::Rejected)
    }

    /// A failure of a call that never left.
    #[must_use]
    pub fn not_sent(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, message).with_executed(Executed::NotSent)
    }

    /// A failure that leaves open whether the call was carried out.
    #[must_use]
    pub fn in_doubt(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, message).with_executed(Executed::Unknown)
    }

    /// What kind of failure.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Whether the call was carried out.
    #[must_use]
    pub const fn executed(&self) -> Executed {
        self.executed
    }

    /// What happened, for people.
    #[must_use]
    pub const fn message(&self) -> &str {
        &self.message
    }

    /// What happened, for programs; what is in it is between a service and its callers.
    #[must_use]
    pub const fn details(&self) -> &[u8] {
        &self.details
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_the_same_thing() {
        for (number, code) in (0_u32..).zip(Code::ALL) {
            assert_eq!(code.number(), number);
            assert_eq!(Code::from_number(number), code);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(u32::MAX), Code::Unknown);
    }
}
