//! The log itself, as the `log` facade sees it.

use std::sync::Arc;

use log::{Log, Metadata, Record};

use crate::config::FACADE_FLUSH_MAX;
use crate::shared::Shared;
use crate::{LogStats, caller};

/// A log that is written by threads of its own. Made by [`Builder`](crate::Builder); clones are handles to the same log.
///
/// A program installs one with [`Builder::install`](crate::Builder::install). By itself, from [`Builder::build`](crate::Builder::build),
/// it is for tests and for a second log beside the program's.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use log::Log;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("audit.log");
/// let (audit, guard) = asynclog::Builder::new().file(&path).sealed(false).build()?;
/// audit.log(&log::Record::builder().target("audit").args(format_args!("ann joined")).build());
/// drop(guard);
/// assert!(std::fs::read_to_string(&path)?.ends_with(" audit - | ann joined\n"));
/// assert_eq!(audit.stats().written, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncLog {
    pub(crate) shared: Arc<Shared>,
}

impl AsyncLog {
    /// What the log has done so far. Any thread; also after the guard is dropped.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }
}

impl Log for AsyncLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shared.filter.allows(metadata.level(), metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.shared.submit(record);
        }
    }

    /// Waits up to 5 s until all is written; on a thread that must not wait, only asks for it.
    fn flush(&self) {
        if caller::never_waits() {
            self.shared.request_flush();
        } else {
            // The facade takes no answer.
            let _ = self.shared.barrier(FACADE_FLUSH_MAX);
        }
    }
}
