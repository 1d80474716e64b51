//! A record on its way from its caller to the log thread.

use std::io;

use crossbeam_channel::Sender;
use log::Level;

/// What a caller puts into the queue: everything but the time is formatted.
#[derive(Debug)]
pub(crate) struct Entry {
    /// When, in microseconds since 1970.
    pub(crate) micros: i64,
    pub(crate) level: Level,
    /// `thread target file:line | message` and the newline.
    pub(crate) body: Vec<u8>,
}

/// Asks for everything logged so far to be written; the answer says whether it is.
#[derive(Debug)]
pub(crate) struct Barrier {
    pub(crate) done: Sender<io::Result<()>>,
}
