//! The client's limits and times, in one place, each with its reason.

use std::time::Duration;

/// Entries kept in memory per conversation. At 100 bytes each, a megabyte; older ones are read from the server again.
pub(crate) const ENTRIES_KEPT: usize = 10_000;

/// Sends that wait for their answer at once: well below the 256 requests at which the server stops reading.
pub(crate) const SENDS_IN_FLIGHT_MAX: usize = 64;

/// Sends that were accepted and are not answered yet. A person never gets there; a script waits for room.
pub(crate) const OUTBOX_MAX: usize = 1_000;

/// Other requests that are not answered yet.
pub(crate) const ASKS_MAX: usize = 64;

/// An ack is sent at the latest so long after the first message that it covers.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(200);

/// Messages after which acks are sent at once: an eighth of the server's window, so that the window never closes on us.
pub(crate) const ACK_EVERY: u32 = 32;

/// How long a hole in a conversation may stand before it is asked for. What fills holes is normally on its way already.
pub(crate) const HOLE_PATIENCE: Duration = Duration::from_secs(2);

/// The first wait before a send that was answered with `unavailable` or `overloaded` is tried again; it doubles.
pub(crate) const RETRY_BASE: Duration = Duration::from_millis(500);

/// The longest such wait.
pub(crate) const RETRY_CAP: Duration = Duration::from_secs(15);

/// At most one `typing` in this time.
pub(crate) const TYPING_EVERY: Duration = Duration::from_secs(3);

/// How long somebody is shown as typing after their last sign of it: two signs and some delay.
pub(crate) const TYPING_SHOWN: Duration = Duration::from_secs(7);

/// Cursors in one `sync` line. 40 bytes each at the most, so that the line stays below its limit.
pub(crate) const CURSORS_PER_LINE: usize = 1_000;

/// Entries asked for in one page of a history or of the list of conversations: the protocol's greatest `limit`.
pub(crate) const PAGE: usize = schema::limits::LIST_LIMIT_MAX;

/// Members of a group that are asked for: enough to know whom to complete and who is online. Larger groups tell the first of them.
pub(crate) const MEMBERS_KEPT: usize = 1_000;

/// Names of users that are remembered, to be shown in place of numbers.
pub(crate) const NAMES_KEPT: usize = 50_000;

/// Conversations whose marks are asked for after a login: those that one looks at.
pub(crate) const MARKS_ASKED_MAX: usize = 20;

/// Events that may wait for the program while it is busy; then reading from the server pauses.
pub(crate) const NET_EVENTS_MAX: usize = 4_096;

/// Lines that may wait for the network's thread.
pub(crate) const NET_POSTS_MAX: usize = 65_536;

/// The longest wait that a server's `reconnect_after_ms` can impose.
pub(crate) const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(300);

/// The limit of the first wait between attempts to connect; it doubles.
pub(crate) const RECONNECT_BASE: Duration = Duration::from_millis(200);

/// What that limit does not exceed: a person waits for it.
pub(crate) const RECONNECT_CAP: Duration = Duration::from_secs(10);

/// How long the goodbye may take: what was sent is delivered, then the program ends.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);

const _: () = assert!(SENDS_IN_FLIGHT_MAX + ASKS_MAX < schema::limits::REQUESTS_UNANSWERED_MAX);
const _: () = assert!(ACK_EVERY as usize * 8 <= schema::limits::PUSH_WINDOW);
const _: () = assert!(CURSORS_PER_LINE * 40 < schema::limits::LINE_BYTES_MAX);
