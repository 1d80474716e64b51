//! One transaction of a writer on a server: few statements of many rows each.
//!
//! The conversations are locked in the order of their ids before anything is looked at, so that several nodes may write to one of them at once, and two batches
//! never wait for each other's rows. What is known of a conversation is good for the version that its row has under this lock.

use rustc_hash::{FxHashMap, FxHashSet};
use schema::{ConvId, Seq, UserId};

use crate::batch::{Moved, advance};
use crate::connection::Connection;
use crate::cursors::Waiting;
use crate::dao::MessageDao;
use crate::error::StoreError;
use crate::heads::{Heads, Names};
use crate::pipeline::{CursorError, SendError, SendRequest};
use crate::row::Param;
use crate::rows::Rows;

/// Where a message stands, or why it has no place.
pub(crate) enum Place {
    New { seq: Seq, names: Names },
    Old { seq: Seq, time_ms: i64 },
    Refused(SendError),
}

const LOCK: Rows<'static> = Rows {
    head: "SELECT id, last_seq, members_version FROM conversation FORCE INDEX (PRIMARY) WHERE id IN (",
    row: "?",
    between: ", ",
    tail: ") ORDER BY id FOR UPDATE",
};
const LOOK: Rows<'static> = Rows {
    head: "SELECT id, last_seq, members_version FROM conversation FORCE INDEX (PRIMARY) WHERE id IN (",
    row: "?",
    between: ", ",
    tail: ") ORDER BY id",
};
const FIND_SENT: Rows<'static> = Rows {
    head: "SELECT sender, conv, client_id, seq, time_ms FROM sent FORCE INDEX (PRIMARY) WHERE ",
    row: "(sender = ? AND conv = ? AND client_id = ?)",
    between: " OR ",
    tail: "",
};
const INSERT_SENT: Rows<'static> = Rows {
    head: "INSERT INTO sent (sender, conv, client_id, seq, time_ms) VALUES ",
    row: "(?, ?, ?, ?, ?)",
    between: ", ",
    tail: "",
};
const INSERT_MESSAGES: Rows<'static> = Rows {
    head: "INSERT INTO message (conv, seq, sender, session, time_ms, text) VALUES ",
    row: "(?, ?, ?, ?, ?, ?)",
    between: ", ",
    tail: "",
};
const SET_LAST: Rows<'static> = Rows {
    head: "INSERT INTO conversation (id, kind, last_seq, created_ms) VALUES ",
    row: "(?, 0, ?, 0)",
    between: ", ",
    tail: " ON DUPLICATE KEY UPDATE last_seq = VALUES(last_seq)",
};
const SET_OWN: Rows<'static> = Rows {
    head: "INSERT INTO member (user, conv, own_seq) VALUES ",
    row: "(?, ?, ?)",
    between: ", ",
    tail: " ON DUPLICATE KEY UPDATE own_seq = GREATEST(own_seq, VALUES(own_seq))",
};
const LOCK_MEMBERS: Rows<'static> = Rows {
    head: "SELECT user, conv, delivered_seq, read_seq FROM member FORCE INDEX (PRIMARY) WHERE ",
    row: "(user = ? AND conv = ?)",
    between: " OR ",
    tail: " ORDER BY user, conv FOR UPDATE",
};
const SET_CURSORS: Rows<'static> = Rows {
    head: "INSERT INTO member (user, conv, delivered_seq, read_seq) VALUES ",
    row: "(?, ?, ?, ?)",
    between: ", ",
    tail: " ON DUPLICATE KEY UPDATE delivered_seq = GREATEST(delivered_seq, VALUES(delivered_seq)),
        read_seq = GREATEST(read_seq, VALUES(read_seq))",
};

/// Writes messages inside the transaction that is open, and says where each of them stands.
///
/// `careful`: looks first which of the `client_id`s are taken. Without it a taken one makes the whole an error, [`StoreError::Duplicate`]: nearly no batch has one.
pub(crate) fn write_sends(
    db: &mut Connection,
    heads: &mut Heads,
    requests: &[SendRequest],
    careful: bool,
    now_ms: i64,
) -> Result<Vec<Place>, StoreError> {
    let there = lock(db, heads, requests.iter().map(|request| request.conv), &LOCK)?;
    let taken = if careful { find_sent(db, requests)? } else { Taken::default() };
    let mut places: Vec<Place> = Vec::with_capacity(requests.len());
    // Of this batch: who took which `client_id`.
    let mut mine: FxHashMap<Key<'_>, usize> = FxHashMap::default();
    for (at, request) in requests.iter().enumerate() {
        if !there.contains(&request.conv) {
            places.push(Place::Refused(SendError::NotFound));
            continue;
        }
        let Some(head) = heads.get(db, request.conv)? else {
            places.push(Place::Refused(SendError::NotFound));
            continue;
        };
        let names = match head.sender(db, request.sender)? {
            Ok(names) => names,
            Err(refusal) => {
                places.push(Place::Refused(refusal));
                continue;
            }
        };
        if let Some(client_id) = request.client_id.as_deref() {
            let key = (request.sender, request.conv, client_id);
            if let Some(old) = taken.get(&(request.sender, request.conv, client_id.to_owned())) {
                places.push(same_again(db, request, *old)?);
                continue;
            }
            if let Some(first) = mine.get(&key) {
                places.push(same_here(requests.get(*first), places.get(*first), request, now_ms));
                continue;
            }
            mine.insert(key, at);
        }
        head.last_seq = head.last_seq.next();
        places.push(Place::New { seq: head.last_seq, names });
    }
    insert(db, requests, &places, now_ms)?;
    Ok(places)
}

type Key<'a> = (UserId, ConvId, &'a str);

/// `client_id`s with the place and the time that they got.
type Taken = FxHashMap<(UserId, ConvId, String), (Seq, i64)>;

/// Reads the conversations' rows, and locks them where the statement does. Says which of them exist.
fn lock(
    db: &mut Connection,
    heads: &mut Heads,
    convs: impl Iterator<Item = ConvId>,
    rows: &Rows<'_>,
) -> Result<FxHashSet<ConvId>, StoreError> {
    let mut ids: Vec<ConvId> = convs.collect();
    ids.sort_unstable();
    ids.dedup();
    let params: Vec<Param<'_>> = ids.iter().map(|id| (*id).into()).collect();
    let mut there = FxHashSet::default();
    for (sql, params) in rows.filled(&params, 1) {
        db.query_each(&sql, &params, |row| {
            let conv = row.get(0)?;
            heads.locked(conv, row.get(2)?, row.get(1)?);
            there.insert(conv);
            Ok(true)
        })?;
    }
    Ok(there)
}

/// Places that were taken under these `client_id`s before.
fn find_sent(db: &mut Connection, requests: &[SendRequest]) -> Result<Taken, StoreError> {
    let mut params: Vec<Param<'_>> = Vec::new();
    for request in requests {
        if let Some(client_id) = request.client_id.as_deref() {
            params.extend::<[Param<'_>; 3]>([request.sender.into(), request.conv.into(), client_id.into()]);
        }
    }
    let mut found = Taken::default();
    if params.is_empty() {
        return Ok(found);
    }
    for (sql, params) in FIND_SENT.filled(&params, 3) {
        db.query_each(&sql, &params, |row| {
            found.insert((row.get(0)?, row.get(1)?, row.get(2)?), (row.get(3)?, row.get(4)?));
            Ok(true)
        })?;
    }
    Ok(found)
}

/// The `client_id` is taken: by the same text, or by another one?
fn same_again(
    db: &mut Connection,
    request: &SendRequest,
    (seq, time_ms): (Seq, i64),
) -> Result<Place, StoreError> {
    Ok(if MessageDao::new(db).may_say(request.conv, seq, &request.text)? {
        Place::Old { seq, time_ms }
    } else {
        Place::Refused(SendError::Conflict)
    })
}

/// The same, for one that was taken in this very batch.
fn same_here(
    first: Option<&SendRequest>,
    place: Option<&Place>,
    request: &SendRequest,
    now_ms: i64,
) -> Place {
    match (first, place) {
        (Some(first), Some(Place::New { seq, .. })) if first.text == request.text => {
            Place::Old { seq: *seq, time_ms: now_ms }
        }
        _ => Place::Refused(SendError::Conflict),
    }
}

fn insert(
    db: &mut Connection,
    requests: &[SendRequest],
    places: &[Place],
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut sent: Vec<Param<'_>> = Vec::with_capacity(requests.len() * 5);
    let mut messages: Vec<Param<'_>> = Vec::with_capacity(requests.len() * 6);
    let mut last: FxHashMap<ConvId, Seq> = FxHashMap::default();
    let mut own: FxHashMap<(UserId, ConvId), Seq> = FxHashMap::default();
    for (request, place) in requests.iter().zip(places) {
        let Place::New { seq, .. } = place else { continue };
        let SendRequest { conv, sender, session, .. } = *request;
        if let Some(client_id) = request.client_id.as_deref() {
            sent.extend::<[Param<'_>; 5]>([
                sender.into(),
                conv.into(),
                client_id.into(),
                (*seq).into(),
                now_ms.into(),
            ]);
        }
        messages.extend::<[Param<'_>; 6]>([
            conv.into(),
            (*seq).into(),
            sender.into(),
            session.into(),
            now_ms.into(),
            request.text.as_str().into(),
        ]);
        last.insert(conv, *seq);
        own.insert((sender, conv), *seq);
    }
    INSERT_SENT.exact(db, &sent, 5)?;
    INSERT_MESSAGES.exact(db, &messages, 6)?;
    let mut last: Vec<_> = last.into_iter().collect();
    last.sort_unstable();
    let last: Vec<Param<'_>> = last.into_iter().flat_map(|(conv, seq)| [conv.into(), seq.into()]).collect();
    execute_filled(db, &SET_LAST, &last, 2)?;
    let mut own: Vec<_> = own.into_iter().collect();
    own.sort_unstable();
    let own: Vec<Param<'_>> =
        own.into_iter().flat_map(|((user, conv), seq)| [user.into(), conv.into(), seq.into()]).collect();
    execute_filled(db, &SET_OWN, &own, 3)
}

fn execute_filled(
    db: &mut Connection,
    rows: &Rows<'_>,
    params: &[Param<'_>],
    width: usize,
) -> Result<(), StoreError> {
    for (sql, params) in rows.filled(params, width) {
        db.execute(&sql, &params)?;
    }
    Ok(())
}

/// Moves cursors inside the transaction that is open.
pub(crate) fn write_cursors(
    db: &mut Connection,
    heads: &mut Heads,
    waiting: &[Waiting],
) -> Result<Vec<Result<Moved, CursorError>>, StoreError> {
    let there = lock(db, heads, waiting.iter().map(|waiting| waiting.conv), &LOOK)?;
    let keys: Vec<Param<'_>> =
        waiting.iter().flat_map(|waiting| [waiting.user.into(), waiting.conv.into()]).collect();
    let mut marks: FxHashMap<(UserId, ConvId), (Seq, Seq)> = FxHashMap::default();
    for (sql, params) in LOCK_MEMBERS.filled(&keys, 2) {
        db.query_each(&sql, &params, |row| {
            marks.insert((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?));
            Ok(true)
        })?;
    }
    let mut all = Vec::with_capacity(waiting.len());
    let mut moved: Vec<Param<'_>> = Vec::new();
    for waiting in waiting {
        let Waiting { user, conv, .. } = *waiting;
        let head = if there.contains(&conv) { heads.get(db, conv)? } else { None };
        let Some(head) = head else {
            all.push(Err(CursorError::NotFound));
            continue;
        };
        let (Some((last, audience)), Some((old_delivered, old_read))) =
            (head.reader(db, user)?, marks.get(&(user, conv)).copied())
        else {
            all.push(Err(CursorError::Forbidden));
            continue;
        };
        let delivered = advance(old_delivered, waiting.delivered, last);
        let read = advance(old_read, waiting.read, last);
        if delivered.is_some() || read.is_some() {
            let (delivered, read) = (delivered.unwrap_or(old_delivered), read.unwrap_or(old_read));
            moved.extend::<[Param<'_>; 4]>([user.into(), conv.into(), delivered.into(), read.into()]);
        }
        all.push(Ok(Moved { audience, delivered, read }));
    }
    execute_filled(db, &SET_CURSORS, &moved, 4)?;
    Ok(all)
}
