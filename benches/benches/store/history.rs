//! Reading among few messages and among many: the last page of a conversation, and what a user has missed.

use std::error::Error;
use std::time::Instant;

use benches::rows::{Bar, Rows, median};
use schema::{ConvId, UserId};
use store::dao::{MessageDao, OfflineMessageDao, PageLimit};
use store::{CommittedBatch, Store, StoreError};

use crate::engine::{Engine, Place};
use crate::load::pairs;

/// Messages of a conversation: a catch-up reads the last thousand of them.
const EACH: u64 = 10_000;
const FEW: u64 = 10_000;
/// Readings of one round.
const READINGS: u32 = 50;

const PAGE: PageLimit = PageLimit { entries: 100, bytes: usize::MAX };
const MISSED: PageLimit = PageLimit { entries: 1_000, bytes: usize::MAX };

pub(crate) fn measure(
    engine: Engine,
    many: u64,
    rounds: usize,
    rows: &mut Rows,
) -> Result<(), Box<dyn Error>> {
    let small = Filled::new(engine, FEW)?;
    let large = Filled::new(engine, many)?;
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..rounds.max(3) {
        for (times, filled) in times.iter_mut().zip([&small, &large]) {
            let (page, missed) = filled.read()?;
            times[0].push(page);
            times[1].push(missed);
        }
    }
    let [small, large] = &times;
    let whats = ["last page (100)", "catch-up (1,000)"];
    for ((what, small), large) in whats.into_iter().zip(small).zip(large) {
        let case = format!("{what} among {many}");
        rows.add(&case, engine.name(), "time, against among 10,000", "us", large, None);
        rows.compare(large, small, Bar::AtMost(2.0));
        eprintln!("{} {what}: {:.0} us among few", engine.name(), median(small).unwrap_or_default());
    }
    Ok(())
}

struct Filled {
    _place: Place,
    store: Store,
    convs: Vec<(ConvId, UserId)>,
}

impl Filled {
    fn new(engine: Engine, messages: u64) -> Result<Self, Box<dyn Error>> {
        let place = Place::new(engine, 512, 2)?;
        let store = place.open(Box::new(|_: CommittedBatch| {}))?;
        let convs = pairs(&store, messages / EACH)?;
        let began = Instant::now();
        // Interleaved, as people write: a conversation's rows come in many pieces.
        const STEP: u64 = 500;
        for from in (0..EACH).step_by(usize::try_from(STEP)?) {
            for some in convs.chunks(100) {
                let some = some.to_vec();
                store.write_wait(move |db| some.iter().try_for_each(|pair| fill(db, *pair, from, STEP)))?;
            }
        }
        for some in convs.chunks(1_000) {
            let some = some.to_vec();
            store.write_wait(move |db| some.iter().try_for_each(|(conv, user)| end(db, *conv, *user)))?;
        }
        eprintln!("{}: {messages} messages written in {:.0} s", engine.name(), began.elapsed().as_secs_f64());
        Ok(Self { _place: place, store, convs })
    }

    /// Microseconds of a last page and of a catch-up.
    fn read(&self) -> Result<(f64, f64), Box<dyn Error>> {
        let step = (self.convs.len() / usize::try_from(READINGS)?).max(1);
        let some: Vec<_> = self.convs.iter().step_by(step).cycle().take(usize::try_from(READINGS)?).collect();
        let time = |work: &dyn Fn(ConvId, UserId) -> Result<usize, StoreError>, wanted: usize| {
            let began = Instant::now();
            for (conv, user) in &some {
                let found = work(*conv, *user)?;
                if found != wanted {
                    return Err(StoreError::corrupt(format!("{found} entries, not {wanted}")));
                }
            }
            Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(READINGS))
        };
        let page = |conv: ConvId, _: UserId| {
            self.store.read_wait(move |db| Ok(MessageDao::new(db).last(conv, PAGE)?.entries.len()))
        };
        let missed = |conv: ConvId, user: UserId| {
            self.store
                .read_wait(move |db| Ok(OfflineMessageDao::new(db).page(user, conv, MISSED)?.entries.len()))
        };
        // Once to warm up what stays warm: the statements.
        time(&page, 100)?;
        time(&missed, 1_000)?;
        Ok((time(&page, 100)?, time(&missed, 1_000)?))
    }
}

/// Entries of a conversation in one statement.
fn fill(
    db: &mut store::Connection,
    (conv, sender): (ConvId, UserId),
    from: u64,
    count: u64,
) -> Result<(), StoreError> {
    let mut sql = String::from("INSERT INTO message (conv, seq, sender, session, time_ms, text) VALUES ");
    for at in 1..=count {
        let seq = from + at;
        let comma = if at > 1 { "," } else { "" };
        sql.push_str(&format!(
            "{comma}({conv},{seq},{sender},1,1,'sixty-four bytes of text, which is what people write on average.')"
        ));
    }
    db.execute(&sql, &[]).map(drop)
}

/// The conversation ends where it was filled to, and the user has missed the last thousand.
fn end(db: &mut store::Connection, conv: ConvId, user: UserId) -> Result<(), StoreError> {
    let last = i64::try_from(EACH).unwrap_or(i64::MAX);
    db.execute("UPDATE conversation SET last_seq = ? WHERE id = ?", &[last.into(), conv.into()])?;
    let seen = (last - 1_000).into();
    db.execute(
        "UPDATE member SET delivered_seq = ? WHERE user = ? AND conv = ?",
        &[seen, user.into(), conv.into()],
    )?;
    Ok(())
}
