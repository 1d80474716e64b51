//! The limits of the protocol and of the server, in one place, each with its reason.

use std::time::Duration;

/// The greatest id and number in JSON: 2^53 - 1, above which JavaScript's numbers lose integers.
pub const ID_MAX: u64 = (1 << 53) - 1;

/// The protocol version that `hello` names and `login` may ask for.
pub const PROTOCOL_VERSION: u32 = 1;

/// Bytes of a line before login, `\n` not counted: what a stranger may make us hold. Room for a name and a password of the greatest lengths, escaped.
pub const LINE_BYTES_MAX_STRANGER: usize = 4_096;

/// Bytes of a line after login, `\n` not counted, in both directions.
pub const LINE_BYTES_MAX: usize = 65_536;

/// Bytes of a message's text in UTF-8. Escaped at its worst (`\n` and `\t` become two bytes, `"` and `\` too) a text stays far below a line.
pub const TEXT_BYTES_MAX: usize = 16_384;

/// `message` pushes that a connection may have unacked. Covers 1 s of a busy conversation at a 100 ms round trip many times over.
pub const PUSH_WINDOW: usize = 256;

/// Unsent bytes to one connection at which pushing pauses; the rest waits in the store.
pub const PUSH_OUTPUT_BYTES_MAX: usize = 65_536;

/// Requests of one connection without their reply, at which the server stops reading from it.
pub const REQUESTS_UNANSWERED_MAX: usize = 256;

/// Bad lines in a row that end a connection: a client that does not speak the protocol.
pub const BAD_LINES_MAX: u32 = 16;

/// Live sessions of one user; one more ends the oldest.
pub const SESSIONS_PER_USER_MAX: usize = 8;

/// Tokens of one user; one more revokes the one that expires first. More than the sessions, since devices sleep.
pub const TOKENS_PER_USER_MAX: usize = 32;

/// How long a token is valid after its last use.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// Random bytes of a token. The protocol asks for at least 16; 32 makes guessing hopeless for any number of users.
pub const TOKEN_BYTES: usize = 32;

/// How often a client should give a sign of life.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

/// Silence after which a connection is closed: 2.5 heartbeats, so that one lost heartbeat is forgiven.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a connection may stay without a login.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a close that the server decided may take to deliver what is still unsent.
pub const BYE_TIMEOUT: Duration = Duration::from_secs(5);

/// At the latest so long after its arrival an `ack` without `id` is written.
pub const ACK_WRITE_MAX: Duration = Duration::from_secs(5);

/// Characters of a user's name.
pub const NAME_CHARS_MAX: usize = 32;

/// Characters of a group's name. A name that is longer is a topic, and would fill the list of a client.
pub const GROUP_NAME_CHARS_MAX: usize = 64;

/// Members up to which a group's read and delivered marks are kept and pushed: beyond, nobody looks at them and they would cost more than the messages.
pub const MARKS_MEMBERS_MAX: usize = 100;

/// Bytes of a password. The lower bound is NIST SP 800-63B's; the upper bounds what an attacker can make us hash.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// See [`PASSWORD_BYTES_MIN`].
pub const PASSWORD_BYTES_MAX: usize = 128;

/// Characters of a `client_id`. Fits a UUID, a hash in hex, or a device and a counter.
pub const CLIENT_ID_CHARS_MAX: usize = 64;

/// Members of a group. Its size costs nothing per message; the bound is for the lists and for who pays for the pushes.
pub const GROUP_MEMBERS_MAX: u64 = 10_000;

/// Characters of a `device` label at login.
pub const DEVICE_CHARS_MAX: usize = 64;

/// Items of a list reply, when the request names no `limit`.
pub const LIST_LIMIT_DEFAULT: usize = 100;
/// The greatest `limit` of a list request.
pub const LIST_LIMIT_MAX: usize = 200;

/// Cursors that one `hold` login may give over all its `sync` lines: far more conversations than a person has.
pub const SYNC_CURSORS_MAX: usize = 20_000;

// How the limits relate: what is accepted must fit into what is sent.
const _: () = assert!(ID_MAX < i64::MAX.cast_unsigned());
const _: () = assert!(LINE_BYTES_MAX_STRANGER < LINE_BYTES_MAX);
// A `message` line: the text with every byte escaped to two, and 1 KiB for the rest (two names of 32 characters at 4 bytes, seven numbers).
const _: () = assert!(TEXT_BYTES_MAX * 2 + 1_024 < LINE_BYTES_MAX);
// A password and a name fit a stranger's line even when each byte is written as `\u00xx`.
const _: () = assert!((PASSWORD_BYTES_MAX + NAME_CHARS_MAX * 2) * 6 + 512 < LINE_BYTES_MAX_STRANGER);
// A list item: a name, escaped, and 256 bytes for the rest. What a page leaves out comes with the next, but one item must fit.
const _: () = assert!(GROUP_NAME_CHARS_MAX * 4 * 2 + 256 < LINE_BYTES_MAX);
const _: () = assert!(SESSIONS_PER_USER_MAX <= TOKENS_PER_USER_MAX);
const _: () = assert!(IDLE_TIMEOUT.as_secs() * 2 == HEARTBEAT.as_secs() * 5);
const _: () = assert!(LIST_LIMIT_DEFAULT <= LIST_LIMIT_MAX);
