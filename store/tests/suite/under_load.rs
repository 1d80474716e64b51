//! Messages that go on while something breaks: each conversation has one in flight, and sends it again, as a client does, until it is accepted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use schema::{ConvId, Seq, UserId};
use store::dao::{ConversationDao, MessageDao, UserDao};
use store::{CommittedBatch, DbConfig, Sent, Store, StoreError};

use crate::common::{ALL, LONG, ticket, with_id};

/// How long an outcome may take, whatever happens: a statement's time, the waits for locks, and the look whether a commit was done.
const OUTCOME_MAX: Duration = Duration::from_secs(20);
/// Before a message is sent again.
const AGAIN: Duration = Duration::from_millis(20);

pub struct Load {
    pub store: Store,
    talks: Vec<(ConvId, UserId)>,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    thread: JoinHandle<Report>,
}

pub struct Report {
    /// What each conversation was told to hold.
    acked: HashMap<ConvId, Vec<(Seq, String)>>,
    longest: Duration,
}

/// One conversation's message in flight.
struct Flight {
    number: u64,
    since: Instant,
    waiting: bool,
    due: Instant,
}

impl Load {
    /// Makes so many conversations and begins. `name` is part of all users' names and texts, so that several can be at one database.
    pub fn start(config: &DbConfig, name: &'static str, count: u64) -> Self {
        let (sender, batches) = unbounded();
        let store = Store::open(config, Box::new(move |batch| drop(sender.send(batch)))).unwrap();
        let talks = store
            .write_wait(move |db| {
                (0..count)
                    .map(|at| {
                        let a = UserDao::new(db).create("a", &format!("{name}-a{at}"), "", 0)?;
                        let b = UserDao::new(db).create("b", &format!("{name}-b{at}"), "", 0)?;
                        Ok((ConversationDao::new(db).direct(a, b, 0)?.unwrap().id, a))
                    })
                    .collect::<Result<Vec<_>, StoreError>>()
            })
            .unwrap();
        Self::on(store, batches, name, talks)
    }

    /// The same in conversations that are there.
    pub fn on(
        store: Store,
        batches: Receiver<CommittedBatch>,
        name: &'static str,
        talks: Vec<(ConvId, UserId)>,
    ) -> Self {
        let (stop, acked, refused) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let thread = {
            let (store, talks) = (store.clone(), talks.clone());
            let (stop, acked, refused) = (Arc::clone(&stop), Arc::clone(&acked), Arc::clone(&refused));
            std::thread::spawn(move || drive(&store, &batches, name, &talks, &stop, &acked, &refused))
        };
        Self { store, talks, stop, acked, refused, thread }
    }

    pub fn talks(&self) -> &[(ConvId, UserId)] {
        &self.talks
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until so many more messages were accepted, and says how long that took.
    #[track_caller]
    pub fn goes_on(&self, messages: u64) -> Duration {
        let (before, began) = (self.acked(), Instant::now());
        while self.acked() < before + messages {
            assert!(began.elapsed() < LONG, "no {messages} messages: {:?}", self.store.pool_stats());
            assert!(!self.thread.is_finished(), "the load has ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        began.elapsed()
    }

    /// Ends the load and looks whether the tables hold what was acknowledged: once, in its place, and in order.
    #[track_caller]
    pub fn verify(self) {
        let store = self.store.clone();
        let talks = self.talks.clone();
        let report = self.finish();
        assert!(report.longest < OUTCOME_MAX, "an outcome took {:?}", report.longest);
        check(&store, &talks, &[&report]);
        store.close();
    }

    /// Ends the load. What is in flight is waited for.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Looks whether the conversations hold what the reports say, without a gap and nothing twice.
#[track_caller]
pub fn check(store: &Store, talks: &[(ConvId, UserId)], reports: &[&Report]) {
    for (conv, _) in talks {
        let conv = *conv;
        let entries = store.read_wait(move |db| MessageDao::new(db).last(conv, ALL)).unwrap().entries;
        assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq.get() == seq), "a gap in {conv}");
        let row = store.read_wait(move |db| ConversationDao::new(db).get(conv)).unwrap().unwrap();
        assert_eq!(row.last_seq.get(), u64::try_from(entries.len()).unwrap());
        let mut texts: Vec<&str> = entries.iter().map(|entry| entry.text()).collect();
        for report in reports {
            let acked = report.acked.get(&conv).map(Vec::as_slice).unwrap_or_default();
            assert!(acked.is_sorted_by_key(|(seq, _)| *seq), "order in {conv}");
            for (seq, text) in acked {
                let at = usize::try_from(seq.get()).unwrap() - 1;
                assert_eq!(entries.get(at).map(|entry| entry.text()), Some(text.as_str()), "{conv}/{seq}");
            }
        }
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), entries.len(), "something is twice in {conv}");
    }
}

fn drive(
    store: &Store,
    batches: &Receiver<CommittedBatch>,
    name: &str,
    talks: &[(ConvId, UserId)],
    stop: &AtomicBool,
    acked: &AtomicU64,
    refused: &AtomicU64,
) -> Report {
    let mut report = Report { acked: HashMap::new(), longest: Duration::ZERO };
    let now = Instant::now();
    let mut flights: Vec<Flight> =
        talks.iter().map(|_| Flight { number: 0, since: now, waiting: false, due: now }).collect();
    let refuse = |flight: &mut Flight| {
        refused.fetch_add(1, Ordering::Relaxed);
        flight.waiting = false;
        flight.due = Instant::now() + AGAIN;
    };
    while !stop.load(Ordering::Relaxed) || flights.iter().any(|flight| flight.waiting) {
        for (at, ((conv, user), flight)) in talks.iter().zip(&mut flights).enumerate() {
            if flight.waiting || stop.load(Ordering::Relaxed) || Instant::now() < flight.due {
                continue;
            }
            let text = format!("{name} {at} {}", flight.number);
            let mut request = with_id(*conv, *user, &text.replace(' ', "-"), &text);
            request.ticket = ticket(u64::try_from(at).unwrap());
            flight.since = Instant::now();
            match store.send(request) {
                Ok(()) => flight.waiting = true,
                Err(StoreError::Overloaded) => refuse(flight),
                Err(error) => panic!("{error}"),
            }
        }
        let Ok(batch) = batches.recv_timeout(Duration::from_millis(5)) else { continue };
        for outcome in batch.sends {
            let Some(ticket) = outcome.ticket else { continue };
            let at = usize::try_from(ticket.token).unwrap();
            let flight = &mut flights[at];
            assert!(flight.waiting, "an outcome that nobody waits for");
            report.longest = report.longest.max(flight.since.elapsed());
            let seq = match outcome.result {
                Ok(Sent::New(entry)) => entry.seq,
                Ok(Sent::Duplicate { seq, .. }) => seq,
                Err(_) => {
                    refuse(flight);
                    continue;
                }
            };
            let text = format!("{name} {at} {}", flight.number);
            report.acked.entry(outcome.conv).or_default().push((seq, text));
            flight.waiting = false;
            flight.number += 1;
            acked.fetch_add(1, Ordering::Relaxed);
        }
    }
    report
}
