//! Measures the commit pipeline by itself: durable messages a second, with the batch as large as it may be and forced to one.
//!
//! `cargo run --release -p store --example throughput -- [conversations] [seconds] [batch_max]`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measuring program: it ends at the first fault"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schema::{ConvId, SessionId, UserId};
use store::dao::{ConversationDao, UserDao};
use store::{CommittedBatch, DbConfig, SendRequest, Sent, Store, StoreError, Ticket};

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().unwrap());
    let conversations = args.next().unwrap_or(100);
    let seconds = args.next().unwrap_or(5);
    let batch_max = args.next().map_or(512, |batch| usize::try_from(batch).unwrap());

    let folder = tempfile::tempdir_in(".").unwrap();
    let config = DbConfig { batch_max, ..DbConfig::at(folder.path()) };
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let sink = move |batch: CommittedBatch| {
        let new = batch.sends.iter().filter(|outcome| matches!(outcome.result, Ok(Sent::New(_)))).count();
        counted.fetch_add(u64::try_from(new).unwrap(), Ordering::Relaxed);
    };
    let store = Store::open(&config, Box::new(sink)).unwrap();
    let pairs: Vec<(ConvId, UserId)> = (0..conversations)
        .map(|pair| {
            store
                .write_wait(move |db| {
                    let a = UserDao::new(db).create("a", &format!("a{pair}"), "", 0)?;
                    let b = UserDao::new(db).create("b", &format!("b{pair}"), "", 0)?;
                    let conv = ConversationDao::new(db).direct(a, b, 0)?;
                    Ok((conv.unwrap().id, a))
                })
                .unwrap()
        })
        .collect();

    let before = store.stats();
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        let (conv, sender) = pairs[usize::try_from(sent % conversations).unwrap()];
        let request = SendRequest {
            ticket: Ticket { owner: 0, token: sent, call: Some(sent) },
            conv,
            sender,
            session: SessionId::new(1).unwrap(),
            client_id: Some(format!("client-{sent}").into()),
            text: "sixty-four bytes of text, which is what people write on average.".to_owned(),
        };
        match store.send(request) {
            Ok(()) => sent += 1,
            Err(StoreError::Overloaded) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    store.close();
    let elapsed = start.elapsed().as_secs_f64();
    let after = store.stats();
    let messages = done.load(Ordering::Relaxed);
    let batches = after.batches - before.batches;
    println!(
        "{conversations} conversations, batch_max {batch_max}: {messages} messages in {elapsed:.2} s, {:.0}/s, {:.1} a batch, {} checkpoints",
        messages as f64 / elapsed,
        messages as f64 / batches as f64,
        after.checkpoints,
    );
}
