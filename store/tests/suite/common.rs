//! What the store's tests share: an open store, its outcomes, and shortcuts.

use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use schema::{ConvId, Seq, SessionId, UserId};
use store::dao::{ConversationDao, MessageDao, PageLimit, UserDao};
use store::{
    CommittedBatch, CursorOutcome, CursorWrite, DbConfig, Entry, SendError, SendOutcome, SendRequest, Sent,
    Store, StoreError, Ticket,
};

/// Longer than anything here takes, even on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);
pub const ALL: PageLimit = PageLimit { entries: 1_000_000, bytes: usize::MAX };

pub use crate::engine::Place;

impl Place {
    pub fn open(&self) -> Harness {
        Harness::with(&self.config())
    }
}

pub struct Harness {
    pub store: Store,
    pub batches: Receiver<CommittedBatch>,
}

impl Harness {
    pub fn with(config: &DbConfig) -> Self {
        Self::try_with(config).unwrap()
    }

    pub fn try_with(config: &DbConfig) -> Result<Self, StoreError> {
        let (sender, batches) = unbounded();
        let sink = move |batch| drop(sender.send(batch));
        Ok(Self { store: Store::open(config, Box::new(sink))?, batches })
    }

    pub fn user(&self, name: &str) -> UserId {
        let name = name.to_owned();
        self.store.write_wait(move |db| UserDao::new(db).create(&name, &name, "hash", 1)).unwrap()
    }

    pub fn direct(&self, a: UserId, b: UserId) -> ConvId {
        self.store.write_wait(move |db| ConversationDao::new(db).direct(a, b, 1)).unwrap().unwrap().id
    }

    /// Two users and their conversation.
    pub fn pair(&self) -> (UserId, UserId, ConvId) {
        let (a, b) = (self.user("amy"), self.user("bob"));
        (a, b, self.direct(a, b))
    }

    /// Sends and waits for the outcome. For one sender at a time.
    pub fn say(&self, request: SendRequest) -> Result<Sent, SendError> {
        self.store.send(request).unwrap();
        self.sends(1).pop().unwrap().result
    }

    /// The same where entries that jobs have written may come before.
    pub fn say_past_events(&self, request: SendRequest) -> Result<Sent, SendError> {
        self.store.send(request).unwrap();
        loop {
            let batch = self.batches.recv_timeout(LONG).unwrap();
            if let Some(outcome) = batch.sends.into_iter().find(|outcome| outcome.ticket.is_some()) {
                return outcome.result;
            }
        }
    }

    /// Moves cursors and waits for the outcome. For one at a time.
    pub fn moved(&self, write: CursorWrite) -> CursorOutcome {
        self.store.move_cursor(write).unwrap();
        loop {
            // Entries that jobs have written may come before.
            if let Some(outcome) = self.batches.recv_timeout(LONG).unwrap().cursors.pop() {
                return outcome;
            }
        }
    }

    /// The next `count` outcomes of sends.
    pub fn sends(&self, count: usize) -> Vec<SendOutcome> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.batches.recv_timeout(LONG).unwrap().sends);
        }
        assert_eq!(all.len(), count);
        all
    }

    /// All entries of a conversation.
    pub fn entries(&self, conv: ConvId) -> Vec<Entry> {
        self.store.read_wait(move |db| MessageDao::new(db).last(conv, ALL)).unwrap().entries
    }

    /// Stops the writer inside a job until what is returned is dropped.
    pub fn stop_writer(&self) -> crossbeam_channel::Sender<()> {
        let (hold, held) = unbounded::<()>();
        let (reached, reaching) = unbounded();
        let op = move |_: &mut store::Connection| {
            reached.send(()).unwrap();
            let _ = held.recv();
            Ok(())
        };
        self.store.write_in(conv(1), op, |_| {}).unwrap();
        reaching.recv_timeout(LONG).unwrap();
        hold
    }
}

pub fn ticket(token: u64) -> Ticket {
    Ticket { owner: 1, token, call: Some(token) }
}

pub fn message(conv: ConvId, sender: UserId, text: &str) -> SendRequest {
    let session = SessionId::new(sender.get()).unwrap();
    SendRequest { ticket: ticket(0), conv, sender, session, client_id: None, text: text.to_owned() }
}

pub fn with_id(conv: ConvId, sender: UserId, client_id: &str, text: &str) -> SendRequest {
    SendRequest { client_id: Some(client_id.into()), ..message(conv, sender, text) }
}

pub fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

pub fn conv(number: u64) -> ConvId {
    ConvId::new(number).unwrap()
}

pub fn cursor(user: UserId, conv: ConvId, delivered: Option<u64>, read: Option<u64>) -> CursorWrite {
    CursorWrite { ticket: None, user, conv, delivered: delivered.map(seq), read: read.map(seq) }
}

pub fn new(result: Result<Sent, SendError>) -> Entry {
    match result.unwrap() {
        Sent::New(entry) => entry,
        other @ Sent::Duplicate { .. } => panic!("not new: {other:?}"),
    }
}

/// Checks that a conversation is numbered 1, 2, 3, … and that the tables agree about its end.
pub fn assert_gapless(harness: &Harness, conv: ConvId) -> Vec<Entry> {
    let entries = harness.entries(conv);
    for (at, entry) in entries.iter().enumerate() {
        assert_eq!(entry.seq.get(), u64::try_from(at).unwrap() + 1, "a gap in {conv}");
    }
    let row = harness.store.read_wait(move |db| ConversationDao::new(db).get(conv)).unwrap().unwrap();
    assert_eq!(row.last_seq.get(), u64::try_from(entries.len()).unwrap());
    entries
}
