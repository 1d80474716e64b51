//! What a run says on stderr while it goes on: one line that is rewritten in a terminal, a line a second elsewhere.

use std::io::{IsTerminal as _, Write as _};

/// The line of progress.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    last: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), last: String::new() }
    }

    /// Shows `text`, unless it is shown already.
    pub(crate) fn show(&mut self, text: String) {
        if text == self.last {
            return;
        }
        let mut err = std::io::stderr().lock();
        // A stderr that is gone is no reason to end a measurement.
        let _ = if self.is_terminal { write!(err, "\r\x1b[K{text}") } else { writeln!(err, "{text}") };
        let _ = err.flush();
        self.last = text;
    }

    /// Leaves the line behind.
    pub(crate) fn end(&mut self) {
        if self.is_terminal && !self.last.is_empty() {
            let _ = writeln!(std::io::stderr());
        }
        self.last.clear();
    }
}
