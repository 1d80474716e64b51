//! A barrier on its way from its caller through the log thread to the file-writer.

use std::io;

use crossbeam_channel::Sender;

/// Asks for everything logged so far to be written; the answer says whether it is.
#[derive(Debug)]
pub(crate) struct Barrier {
    pub(crate) done: Sender<io::Result<()>>,
}
