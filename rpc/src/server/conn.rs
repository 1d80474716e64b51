//! What a server keeps for each connection, and what it says on it.

use std::sync::Arc;
use std::time::Instant;

use reactor::ConnId;
use rustc_hash::FxHashMap;

use crate::chunks::{Assembly, Outbox, PeerLimits, SendsLarge};
use crate::context::CallState;
use crate::status::Status;
use crate::wire::{Entry, Header, Kind};

/// A call under way.
pub(crate) struct InFlight {
    /// The method's place among all.
    pub(crate) method: usize,
    pub(crate) began: Instant,
    pub(crate) state: Arc<CallState>,
}

/// A request whose body is arriving.
pub(crate) struct Arriving {
    pub(crate) method_id: u32,
    pub(crate) deadline: Option<Instant>,
    pub(crate) metadata: Vec<Entry>,
}

/// One connection. There are no calls before the hello.
pub(crate) struct ServerConn {
    /// From the client's hello.
    pub(crate) limits: Option<PeerLimits>,
    pub(crate) calls: FxHashMap<u64, InFlight>,
    pub(crate) outbox: Outbox,
    pub(crate) arriving: Assembly<Arriving>,
}

impl ServerConn {
    pub(crate) fn new() -> Self {
        Self {
            limits: None,
            calls: FxHashMap::default(),
            outbox: Outbox::default(),
            arriving: Assembly::default(),
        }
    }

    /// Whether the id names a call that is not over.
    pub(crate) fn knows(&self, call: u64) -> bool {
        self.calls.contains_key(&call) || self.arriving.contains(call)
    }
}

impl SendsLarge for ServerConn {
    fn outbox(&mut self) -> (&mut Outbox, usize) {
        let piece = self.limits.map_or(1, |limits| limits.piece_bytes_max);
        (&mut self.outbox, piece)
    }
}

/// The longest text and details of an error that are sent: the header has its limit.
const TEXT_BYTES_MAX: usize = 4 * 1024;
const DETAILS_BYTES_MAX: usize = 8 * 1024;

const _: () = assert!(TEXT_BYTES_MAX + DETAILS_BYTES_MAX + 1024 <= crate::wire::HEADER_BYTES_MAX);

/// The header that tells a client of a failure.
pub(crate) fn error_header(call: u64, status: &Status) -> Header {
    let message = status.message();
    let details = status.details();
    Header {
        status: status.code().number(),
        message: message.get(..message.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default().to_owned(),
        // Half of something for programs is nothing for them.
        details: if details.len() <= DETAILS_BYTES_MAX { details.to_vec() } else { Vec::new() },
        executed: crate::wire::Executed::from(status.executed()).into(),
        ..Header::of(Kind::Error, call)
    }
}

/// A connection with its call, for logs.
pub(crate) fn name_of(id: ConnId, call: u64) -> String {
    format!("call {call} of connection {id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn an_error_of_any_length_fits_a_header() {
        let status = Status::new(Code::Internal, "ä".repeat(100_000)).with_details(vec![7; 100_000]);
        let header = error_header(u64::MAX, &status);
        assert!(prost::Message::encoded_len(&header) <= crate::wire::HEADER_BYTES_MAX);
        assert_eq!(header.message.len(), TEXT_BYTES_MAX);
        assert!(header.details.is_empty());
    }
}
