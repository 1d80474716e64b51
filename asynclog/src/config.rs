//! The settings that have more than one number, their defaults, and the limits with their reasons.

use std::time::Duration;

/// When gathered records are written to the file: as soon as any of the three holds.
///
/// A record of level error, a barrier, a panic and the end of the log write at once, whatever stands here.
///
/// ```
/// use asynclog::FlushConfig;
/// let often = FlushConfig { records: 10, ..FlushConfig::default() };
/// assert_eq!(often.bytes, 64 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushConfig {
    /// So many records are unwritten. Default 1,024.
    pub records: usize,
    /// So many bytes are unwritten. Default 64 KiB.
    pub bytes: usize,
    /// The oldest unwritten record is so old. Default 100 ms; longer than a day counts as a day.
    pub interval: Duration,
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self { records: 1024, bytes: 64 * 1024, interval: Duration::from_millis(100) }
    }
}

/// What a caller does when its thread's buffer is full.
///
/// Threads marked by [`mark_loop_thread`](crate::mark_loop_thread) never wait: for them `Block` is as `Drop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Drop the new record and count it.
    #[default]
    Drop,
    /// Drop the least grave first, and count it: debug and trace records when less than half of the buffer is free, info when less than an eighth is, warnings and
    /// errors when it is full.
    DebugFirst,
    /// Wait for room, but never longer than this per record; then drop it and count it.
    Block {
        /// The longest wait for one record.
        at_most: Duration,
    },
}

/// When the file is rolled, and how many rolled files are kept.
///
/// `chatd.log` becomes `chatd.log.20260923T101504.000001`: the time of rolling in UTC and a number that makes the name
/// new. An existing file is never overwritten. The names of one log sort by age, even when the clock was stepped back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollConfig {
    /// A file does not grow over this, but for the line that ends it, and for a single line longer than it. Default 64 MiB.
    pub bytes_max: u64,
    /// A file does not go on into the next hour or day, which the next record finds out. Default none.
    pub every: Option<RollEvery>,
    /// So many rolled files are kept beside the current one, the oldest are deleted. Default 8.
    pub keep: usize,
    /// Rolled files that were written to longer ago are deleted when the next is rolled. Default none.
    pub keep_for: Option<Duration>,
    /// Rolled files have no more bytes together, the oldest are deleted. Default none.
    pub keep_bytes: Option<u64>,
}

/// The time that one file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RollEvery {
    /// An hour.
    Hour,
    /// A day of UTC.
    Day,
    /// A day of the machine's time zone.
    LocalDay,
}

/// When the file is made to survive a crash of the machine, by `fdatasync`. Without it, it survives that of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// When the operating system likes.
    #[default]
    Never,
    /// Before a barrier is confirmed.
    Barrier,
    /// As `Barrier`, and behind each block with a record of this level or a worse one.
    Level(log::Level),
    /// As `Barrier`, and so long after the first block that is not synced.
    Interval(Duration),
}

impl Default for RollConfig {
    fn default() -> Self {
        Self { bytes_max: 64 * 1024 * 1024, every: None, keep: 8, keep_for: None, keep_bytes: None }
    }
}

/// A thread's buffer unless set: 1,500 lines of usual length, which a thread needs milliseconds to write, longer than the log thread needs to come.
/// Its memory is touched as it is used.
pub(crate) const LANE_BYTES: usize = 256 * 1024;
/// Each thread that logs has one: beyond this it is a mistake in a configuration.
pub(crate) const LANE_BYTES_MAX: usize = 1 << 30;
/// Room for a frame and a short line; with less than this a buffer is full.
pub(crate) const LANE_BYTES_MIN: usize = 128;
/// The longest line; a longer message is cut and says so.
pub(crate) const RECORD_BYTES: usize = 8 * 1024;
/// The longest field, key and value: for ids and names, not for messages.
pub(crate) const FIELD_BYTES: usize = 256;
/// Below this a line's own header would not fit.
pub(crate) const RECORD_BYTES_MIN: usize = 256;
/// A formatting buffer that grew beyond this is given back, so that a few long messages do not stay in memory.
pub(crate) const FRAME_BYTES_KEPT: usize = 4096;
/// What a frame has beside the text.
pub(crate) const FRAME_EXTRA_BYTES: usize = 64;
/// A block is handed over at this size, whatever the flush settings say.
pub(crate) const BLOCK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Blocks between the log thread and the file-writer: one being written, a few ready.
pub(crate) const BLOCKS_MAX: usize = 4;
/// Blocks kept while writing fails; what comes beyond is counted as lost.
pub(crate) const HELD_BYTES_MAX: usize = 1024 * 1024;
/// Beyond it, for warnings and errors only: some thousand lines of what a person will look for first.
pub(crate) const HELD_RESERVE_BYTES: usize = 512 * 1024;
/// Barriers that may wait at a time; more wait for their turn within their time-out.
pub(crate) const BARRIERS_MAX: usize = 16;
/// The first and the longest pause between two attempts to write after a failure.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(50);
/// See [`RETRY_MIN`].
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(2);
/// The longest flush interval: a bound that keeps time arithmetic from overflowing.
pub(crate) const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a panicking thread waits for its last words to be written.
pub(crate) const PANIC_FLUSH_MAX: Duration = Duration::from_secs(1);
/// How long `log::logger().flush()` waits, which has no parameter for it.
pub(crate) const FACADE_FLUSH_MAX: Duration = Duration::from_secs(5);
/// How long dropping the guard waits for a writer that hangs.
pub(crate) const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(RECORD_BYTES >= RECORD_BYTES_MIN);
const _: () = assert!(LANE_BYTES <= LANE_BYTES_MAX && LANE_BYTES >= RECORD_BYTES + FRAME_EXTRA_BYTES);
