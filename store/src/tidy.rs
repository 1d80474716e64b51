//! The tidying thread: forgets what is of no more use, a little at a time, through the same queues as everybody.

use std::sync::Weak;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::dao::SentDao;
use crate::error::StoreError;
use crate::store::{Inner, Store};
use crate::tell::now_ms;

/// `client_id`s are remembered so long. The protocol promises a day; a client that was away over a weekend sends again too.
const REMEMBERED_MS: i64 = 72 * 3_600_000;
/// Between two walks over all of them.
const EVERY: Duration = Duration::from_hours(1);
/// Rows looked at by one job: some milliseconds of a writer.
const SLICE: u32 = 500;
/// Between two jobs, so that messages go first.
const PAUSE: Duration = Duration::from_millis(50);

/// Tidies until the other end of `stop` is gone.
pub(crate) fn run(store: &Weak<Inner>, stop: &Receiver<()>) {
    while wait(stop, EVERY) {
        match sweep(store, stop, now_ms() - REMEMBERED_MS, PAUSE) {
            Ok(0) => {}
            Ok(removed) => log::info!("{removed} old client ids were forgotten"),
            // Another time: nothing depends on it.
            Err(error) => log::warn!("old client ids could not be forgotten: {error}"),
        }
    }
}

/// Whether to go on after so long.
fn wait(stop: &Receiver<()>, time: Duration) -> bool {
    stop.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

/// One walk over the `client_id`s. Returns how many were removed.
pub(crate) fn sweep(
    store: &Weak<Inner>,
    stop: &Receiver<()>,
    before_ms: i64,
    pause: Duration,
) -> Result<usize, StoreError> {
    let (mut after, mut removed) = (None, 0);
    loop {
        let Some(store) = store.upgrade().map(Store::from) else { return Ok(removed) };
        let from = after.take();
        let (stands, gone) =
            store.write_wait(move |db| SentDao::new(db).sweep(from.as_ref(), before_ms, SLICE))?;
        removed += gone;
        after = stands;
        drop(store);
        if after.is_none() || !wait(stop, pause) {
            return Ok(removed);
        }
    }
}
