//! The tool at a real Redis that is restarted, stopped and gone.

use std::collections::HashMap;
use std::time::Duration;

use redis::IntoConnectionInfo as _;
use testkit::{Redis, wait_until};

use super::*;

const LONG: Duration = Duration::from_secs(60);
/// As many users and groups as a large node may have.
const MANY: usize = 100_000;

/// What a listener heard.
#[derive(Default)]
struct Notes {
    messages: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    subscribed: usize,
    ups: Vec<Instant>,
    downs: usize,
}

struct Scribe(Arc<Mutex<Notes>>);

impl Listener for Scribe {
    fn message(&mut self, channel: &[u8], payload: &[u8]) {
        self.0.lock().messages.entry(channel.to_vec()).or_default().push(payload.to_vec());
    }
    fn pause(&mut self) {}
    fn subscribed(&mut self, _: &[u8]) {
        self.0.lock().subscribed += 1;
    }
    fn up(&mut self) {
        self.0.lock().ups.push(Instant::now());
    }
    fn down(&mut self) {
        self.0.lock().downs += 1;
    }
}

/// Publishes what is queued: a channel and a payload.
struct Publisher;

impl Keeper for Publisher {
    type Job = (String, String);
    fn work(&mut self, jobs: &mut Vec<Self::Job>, db: &mut Connection) -> RedisResult<()> {
        let mut all = redis::pipe();
        for (channel, payload) in jobs.iter() {
            all.cmd("PUBLISH").arg(channel).arg(payload).ignore();
        }
        all.query::<()>(db)?;
        jobs.clear();
        Ok(())
    }
    fn let_go(&mut self, _: &mut Vec<Self::Job>) {}
    fn tick(&mut self, db: &mut Connection) -> RedisResult<()> {
        redis::cmd("PING").exec(db)
    }
    fn farewell(&mut self, _: Option<&mut Connection>) {}
}

struct Fixture {
    tool: RedisTool<(String, String)>,
    notes: Arc<Mutex<Notes>>,
    redis: Redis,
}

impl Fixture {
    /// `None`, and a line that says so, where there is no Redis.
    fn start(channels: usize) -> Option<Self> {
        if !Redis::available() {
            return None;
        }
        let redis = Redis::start().unwrap();
        let tool = RedisTool::new(redis.url().into_connection_info().unwrap());
        let notes: Arc<Mutex<Notes>> = Arc::default();
        for at in 0..channels {
            tool.want(name(at).as_bytes(), true);
        }
        tool.run(Scribe(Arc::clone(&notes)), Publisher).unwrap();
        let fixture = Self { tool, notes, redis };
        fixture.wait_up(1);
        Some(fixture)
    }

    fn wait_up(&self, times: usize) {
        wait_until("the channels are heard", LONG, || {
            let stats = self.tool.stats();
            self.notes.lock().ups.len() >= times && stats.receiving && stats.sending
        });
    }

    /// Publishes on a channel until that is heard there.
    fn is_heard(&self, channel: &str) {
        wait_until("it is heard", LONG, || {
            let _ = self.tool.queue((channel.to_owned(), "word".to_owned()));
            self.notes.lock().messages.contains_key(channel.as_bytes())
        });
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tool.stop();
    }
}

fn name(at: usize) -> String {
    format!("channel:{at}")
}

#[test]
fn what_is_wanted_is_heard_in_order_and_nothing_else() {
    let Some(fixture) = Fixture::start(1) else { return };
    fixture.tool.want(b"late", true);
    fixture.is_heard("late");
    fixture.tool.want(b"late", false);
    for number in 0..1_000 {
        fixture.tool.queue((name(0), number.to_string())).unwrap();
        fixture.tool.queue(("nobody's".to_owned(), number.to_string())).unwrap();
    }
    let expected: Vec<Vec<u8>> = (0..1_000).map(|number| number.to_string().into_bytes()).collect();
    wait_until("all are heard", LONG, || {
        fixture.notes.lock().messages.get(name(0).as_bytes()).is_some_and(|heard| heard.len() == 1_000)
    });
    let notes = fixture.notes.lock();
    assert_eq!(notes.messages[name(0).as_bytes()], expected);
    assert!(!notes.messages.contains_key(&b"nobody's"[..]));
}

/// Prints how long it took: the figure of docs/performance.md.
#[test]
fn a_hundred_thousand_channels_are_heard_again_after_a_restart() {
    let Some(fixture) = Fixture::start(MANY) else { return };
    // One that is wanted just then may be told of twice.
    assert!(fixture.notes.lock().subscribed >= MANY);
    fixture.redis.kill9();
    wait_until("the loss is noticed", LONG, || !fixture.tool.is_receiving());
    fixture.redis.restart().unwrap();
    let back = Instant::now();
    fixture.wait_up(2);
    let up = fixture.notes.lock().ups[1];
    println!("{MANY} channels are heard again {:.3} s after Redis is back", (up - back).as_secs_f64());
    for at in [0, MANY / 2, MANY - 1] {
        fixture.is_heard(&name(at));
    }
    let notes = fixture.notes.lock();
    assert!(notes.subscribed >= 2 * MANY, "{}", notes.subscribed);
    assert_eq!((notes.ups.len(), notes.downs), (2, 1));
}

#[test]
fn a_redis_that_falls_silent_is_given_up_and_nobody_who_queues_waits_for_it() {
    let Some(fixture) = Fixture::start(1) else { return };
    fixture.redis.pause();
    wait_until("the silence is noticed", LONG, || {
        // Queued or let go, but never waited for.
        let _ = fixture.tool.queue((name(0), "meanwhile".to_owned()));
        fixture.notes.lock().downs == 1
    });
    wait_until("what is sent is let go", LONG, || {
        let _ = fixture.tool.queue((name(0), "meanwhile".to_owned()));
        fixture.tool.stats().lost > 0
    });
    fixture.redis.resume();
    fixture.wait_up(2);
    fixture.notes.lock().messages.clear();
    fixture.is_heard(&name(0));
}
