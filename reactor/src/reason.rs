//! Why a connection ended, and why something could not be done with one.

use std::io;

use crate::codec::FrameError;

/// Why a connection was closed. Every disconnect has exactly one reason; it is logged once and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer shut down its side and had nothing more to come.
    PeerClosed,
    /// The peer, or the network for it, reset the connection.
    PeerReset,
    /// This side's program closed it, for the reason that the text gives.
    Local(&'static str),
    /// The peer sent a frame that is too long or malformed.
    BadFrame,
    /// A frame was begun and not finished within the frame deadline.
    FrameDeadline,
    /// The peer took nothing of what was to be sent for the write-stall timeout.
    WriteStalled,
    /// More unsent output piled up than the hard limit allows.
    OutputLimit,
    /// A frame came more slowly than the least rate that is allowed.
    FrameTooSlow,
    /// Nothing came, or nothing went, for the idle timeout.
    Idle,
    /// A handler panicked while serving this connection.
    HandlerPanicked,
    /// The loop is stopping.
    LoopStopping,
    /// An operating-system error that none of the other reasons names.
    Io(io::ErrorKind),
    /// The peer broke the rules of TLS, could not be authenticated, or its stream ended without the notice that it would, so that somebody may have cut it.
    Tls,
}

impl CloseReason {
    /// The names under which closes are counted, in the order of [`CloseReason::index`].
    pub const LABELS: [&'static str; 13] = [
        "peer_closed",
        "peer_reset",
        "local",
        "bad_frame",
        "frame_deadline",
        "write_stalled",
        "output_limit",
        "handler_panicked",
        "loop_stopping",
        "io",
        "frame_too_slow",
        "idle",
        "tls",
    ];

    /// The place of this reason in [`CloseReason::LABELS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::PeerClosed => 0,
            Self::PeerReset => 1,
            Self::Local(_) => 2,
            Self::BadFrame => 3,
            Self::FrameDeadline => 4,
            Self::WriteStalled => 5,
            Self::OutputLimit => 6,
            Self::HandlerPanicked => 7,
            Self::LoopStopping => 8,
            Self::Io(_) => 9,
            Self::FrameTooSlow => 10,
            Self::Idle => 11,
            Self::Tls => 12,
        }
    }

    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::PeerReset
            }
            // Only a session says these.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Tls,
            kind => Self::Io(kind),
        }
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::PeerReset => f.write_str("reset by the peer"),
            Self::Local(why) => write!(f, "closed by us: {why}"),
            Self::BadFrame => f.write_str("the peer sent a bad frame"),
            Self::FrameDeadline => f.write_str("a frame was not finished in time"),
            Self::WriteStalled => f.write_str("the peer stopped reading"),
            Self::OutputLimit => f.write_str("too much unsent output"),
            Self::HandlerPanicked => f.write_str("a handler panicked"),
            Self::LoopStopping => f.write_str("the loop is stopping"),
            Self::FrameTooSlow => f.write_str("a frame came too slowly"),
            Self::Idle => f.write_str("idle for too long"),
            Self::Tls => f.write_str("TLS failed"),
            Self::Io(kind) => write!(f, "I/O error: {kind}"),
        }
    }
}

/// Why bytes were not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection has this name any more.
    #[error("the connection is gone")]
    Gone,
    /// The attempt to connect is still under way; `on_open` says when sending may begin.
    #[error("the connection is not open yet")]
    NotOpen,
    /// The connection is being closed; nothing more is accepted.
    #[error("the connection is closing")]
    Closing,
    /// The output would pass its hard limit; the connection is closed for it.
    #[error("too much unsent output")]
    OutputLimit,
    /// The codec cannot carry the payload.
    #[error("the payload does not fit a frame")]
    Unframeable,
}

/// Why a connection attempt ended without a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answered within the connect timeout.
    #[error("no answer within the connect timeout")]
    Timeout,
    /// The socket was connected to itself, as can happen with an ephemeral port on this host.
    #[error("the connection reached itself")]
    SelfConnect,
    /// The operating system refused, with its reason.
    #[error("{message}")]
    Io {
        /// The kind of error, for programs.
        kind: io::ErrorKind,
        /// The error's text, for people.
        message: String,
    },
    /// The name of the host could not be looked up.
    #[error("cannot look up {name}: {message}")]
    Lookup {
        /// The name.
        name: String,
        /// What the system says.
        message: String,
    },
    /// The TLS handshake failed: the server is not who it should be, or no protocol is common to both.
    #[error("TLS: {message}")]
    Tls {
        /// What went wrong.
        message: String,
    },
    /// The server closed the connection before it was open.
    #[error("closed by the server during the handshake")]
    Closed,
    /// The client has no endpoint to connect to.
    #[error("there is no address to connect to")]
    NoAddress,
    /// The loop holds as many connections as it can.
    #[error("no room for another connection")]
    Full,
    /// This side's program gave the attempt up.
    #[error("the attempt was given up")]
    Cancelled,
    /// The handler panicked while making the connection's codec.
    #[error("the handler panicked")]
    HandlerPanicked,
    /// The loop is stopping.
    #[error("the loop is stopping")]
    Stopping,
}

impl ConnectError {
    /// What the end of a connection that never opened means for who wanted it.
    pub(crate) fn from_close(reason: CloseReason) -> Self {
        match reason {
            CloseReason::FrameDeadline => Self::Timeout,
            CloseReason::PeerClosed | CloseReason::PeerReset => Self::Closed,
            CloseReason::Tls => Self::Tls { message: "the handshake was cut".to_owned() },
            CloseReason::LoopStopping => Self::Stopping,
            CloseReason::Io(kind) => Self::Io { kind, message: kind.to_string() },
            _ => Self::Cancelled,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io { kind: error.kind(), message: error.to_string() }
    }
}

/// Why something was not taken by a loop's queue. What was posted comes back in the error where the call says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The queue is full: the loop is behind.
    #[error("the loop's queue is full")]
    Full,
    /// The loop has stopped and takes nothing more.
    #[error("the loop has stopped")]
    Stopped,
    /// The call waits for the loop and was made on the loop's own thread: it would wait for ever.
    #[error("a loop's own thread cannot wait for the loop")]
    OwnThread,
}

impl From<FrameError> for SendError {
    fn from(_: FrameError) -> Self {
        Self::Unframeable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let reasons = [
            CloseReason::PeerClosed,
            CloseReason::PeerReset,
            CloseReason::Local("x"),
            CloseReason::BadFrame,
            CloseReason::FrameDeadline,
            CloseReason::WriteStalled,
            CloseReason::OutputLimit,
            CloseReason::HandlerPanicked,
            CloseReason::LoopStopping,
            CloseReason::Io(io::ErrorKind::Other),
            CloseReason::FrameTooSlow,
            CloseReason::Idle,
            CloseReason::Tls,
        ];
        let mut places: Vec<_> = reasons.iter().map(|reason| reason.index()).collect();
        places.dedup();
        assert_eq!(places, (0..CloseReason::LABELS.len()).collect::<Vec<_>>());
    }
}
