//! The tidying thread: forgets what is of no more use, a little at a time, through the same queues as everybody.

use std::sync::Weak;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use schema::ConvId;

use crate::connection::Connection;
use crate::dao::{ConversationDao, MessageDao, SentDao};
use crate::error::StoreError;
use crate::store::{Inner, Store};
use crate::tell::now_ms;

/// `client_id`s are remembered so long. The protocol promises a day; a client that was away over a weekend sends again too.
const REMEMBERED_MS: i64 = 72 * 3_600_000;
/// Between two walks over all of them.
const EVERY: Duration = Duration::from_hours(1);
/// Rows looked at by one job: some milliseconds of a writer.
const SLICE: u32 = 500;
/// Conversations that one reading job looks at.
const CONVERSATIONS: u32 = 100;
/// Messages deleted by one job: fewer than of the other rows, for they may be long.
const MESSAGES: u32 = 200;
/// Between two jobs, so that messages go first.
const PAUSE: Duration = Duration::from_millis(50);

/// Tidies until the other end of `stop` is gone. Messages that are older than `kept_ms` are deleted, from the start on: a node that is restarted every half an hour is to
/// delete some too.
pub(crate) fn run(store: &Weak<Inner>, stop: &Receiver<()>, kept_ms: Option<i64>) {
    loop {
        if let Some(kept_ms) = kept_ms {
            told("messages", forget(store, stop, now_ms() - kept_ms, PAUSE));
        }
        if !wait(stop, EVERY) {
            return;
        }
        told("client ids", sweep(store, stop, now_ms() - REMEMBERED_MS, PAUSE));
    }
}

fn told(what: &str, result: Result<usize, StoreError>) {
    match result {
        Ok(0) | Err(StoreError::Closed) => {}
        Ok(removed) => log::info!("{removed} old {what} were forgotten"),
        // Another time: nothing depends on it.
        Err(error) => log::warn!("old {what} could not be forgotten: {error}"),
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

/// One walk over the conversations, deleting the messages from before `before_ms`. Returns how many went. Reading threads look for them, so that a walk that finds nothing
/// costs the writers nothing.
pub(crate) fn forget(
    store: &Weak<Inner>,
    stop: &Receiver<()>,
    before_ms: i64,
    pause: Duration,
) -> Result<usize, StoreError> {
    let (mut after, mut removed) = (None, 0);
    loop {
        let Some(found) = store.upgrade().map(Store::from) else { return Ok(removed) };
        let (old, stands) = found.read_wait(move |db| with_old(db, after, before_ms))?;
        drop(found);
        for conv in old {
            let mut more = true;
            while more {
                let Some(inner) = store.upgrade() else { return Ok(removed) };
                let op = move |db: &mut Connection| MessageDao::new(db).forget(conv, before_ms, MESSAGES);
                let (gone, is_full) = Store::from(inner.clone()).write_in_wait(conv, op)?;
                inner.count_expired(gone);
                drop(inner);
                removed += gone;
                more = is_full;
                if !wait(stop, pause) {
                    return Ok(removed);
                }
            }
        }
        after = stands;
        if after.is_none() || !wait(stop, pause) {
            return Ok(removed);
        }
    }
}

/// Of the next conversations those that begin with an old message, and where the walk stands: no place at its end.
fn with_old(
    db: &mut Connection,
    after: Option<ConvId>,
    before_ms: i64,
) -> Result<(Vec<ConvId>, Option<ConvId>), StoreError> {
    let ids = ConversationDao::new(db).ids(after, CONVERSATIONS)?;
    let is_full = ids.len() == usize::try_from(CONVERSATIONS).unwrap_or(usize::MAX);
    let stands = ids.last().copied().filter(|_| is_full);
    let mut old = Vec::new();
    for conv in ids {
        if MessageDao::new(db).begins_before(conv, before_ms)? {
            old.push(conv);
        }
    }
    Ok((old, stands))
}
