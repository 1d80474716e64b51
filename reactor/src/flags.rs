//! What a connection is in the middle of, as bits of one word: whether it is served the short way is one comparison.

use crate::conn::PauseReason;

/// What an event says, as the lowest four flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness(u32);

impl Readiness {
    /// From mio's words: `closed` when the peer shut down its writing side, or all.
    #[inline]
    pub(crate) const fn new(readable: bool, writable: bool, closed: bool, error: bool) -> Self {
        let (readable, writable) = (readable | closed | error, writable | error);
        Self(readable as u32 | (writable as u32) << 1 | ((closed | error) as u32) << 2 | (error as u32) << 3)
    }
}

/// The flags of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $bit:literal $name:ident $set:ident,)*) => {
        impl Flags {
            $(
                $(#[$doc])*
                #[inline]
                pub(crate) const fn $name(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                #[inline]
                pub(crate) const fn $set(&mut self, to: bool) {
                    self.0 = self.0 & !(1 << $bit) | ((to as u32) << $bit);
                }
            )*
        }
    };
}

// The lowest four are an event's, see `Readiness`; the nine highest are the reasons to pause.
flags! {
    /// The socket may have bytes to read: set by an event, cleared by a short read or `EAGAIN`.
    0 readable set_readable,
    /// The socket may take bytes: cleared by `EAGAIN`, set by an event.
    1 writable set_writable,
    /// An event carried a close or error flag: a short read no longer means drained.
    2 hang_up _set_hang_up,
    /// An event carried an error flag: whoever does not read would not meet the error.
    3 failed _set_failed,
    /// The end of the input was read.
    4 peer_eof set_peer_eof,
    /// Our writing side is to be shut down when all is written, or was.
    5 write_shut set_write_shut,
    /// The codec found no frame in the input; nothing more is decoded.
    6 input_dead set_input_dead,
    /// The input buffer holds bytes that the codec has not seen.
    7 undecoded set_undecoded,
    /// `on_high_water` came, `on_low_water` is to come.
    8 above_high set_above_high,
    /// On the list of those that still have input.
    9 in_ready set_in_ready,
    /// On the list of those with output to be written.
    10 in_dirty set_in_dirty,
    /// On the list of those whose output may have crossed a mark.
    11 in_marks set_in_marks,
    /// The handler was told of it.
    12 opened set_opened,
    /// Counts in the table of addresses.
    13 counted set_counted,
    /// The close that was decided discards what is unsent.
    14 aborting set_aborting,
    /// The stream's session has something to write that nobody sent.
    15 owes set_owes,
    /// We connected to it.
    16 outbound set_outbound,
    /// A PROXY header is to come.
    17 awaits_proxy set_awaits_proxy,
    /// `on_drained` is to come when nothing is unsent.
    18 tells_drained set_tells_drained,
}

/// Where the reasons to pause begin.
const PAUSES: u32 = 19;
/// What may stand while an event means nothing but input, and what is sent meanwhile can be written at once.
const IN_NO_ONES_WAY: u32 = (1 << 8) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 16) | (1 << 18);

impl Flags {
    /// A new connection's.
    pub(crate) const NONE: Self = Self(0);

    /// Notes what an event says.
    #[inline]
    pub(crate) const fn note(&mut self, readiness: Readiness) {
        self.0 |= readiness.0;
    }

    /// Whether nothing is in the way of the short way: a read, a frame, a write.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & !IN_NO_ONES_WAY == 0b11
    }

    #[inline]
    pub(crate) const fn paused(self) -> bool {
        self.0 >> PAUSES != 0
    }

    pub(crate) const fn pause(&mut self, reason: PauseReason) {
        self.0 |= (reason.bits() as u32) << PAUSES;
    }

    pub(crate) const fn unpause(&mut self, reason: PauseReason) {
        self.0 &= !((reason.bits() as u32) << PAUSES);
    }
}
