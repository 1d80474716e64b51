//! Posts from other threads to a loop: what one costs, and how often the loop has to be woken for them.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use benches::rig::{Failure, Job, Subject, describe};
use benches::rows::{Bar, Rows};
use reactor::codec::RawCodec;
use reactor::{
    ConnId, Context, EventLoop, Handler, LoopConfig, LoopHandle, OpenInfo, PostError, ServiceConfig,
    ServiceHandle,
};

use crate::Bench;

/// Posts of a burst.
const BURST: u32 = 300_000;
/// Nanoseconds per post, by the number of producers.
const COSTS: [(u32, f64); 2] = [(1, 40.0), (4, 120.0)];
const WAKEUPS_MAX: f64 = 0.01;
/// How long a burst may take before it is a failure.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Counts the messages of a burst, and says when the last came.
struct Count {
    tally: Arc<Tally>,
}

/// How many posts of a burst are still to come. Only the loop's thread counts.
struct Tally {
    left: AtomicU32,
    whole: u32,
    done: Sender<Instant>,
}

impl Tally {
    fn one_came(&self) {
        let left = self.left.load(Ordering::Relaxed) - 1;
        if left > 0 {
            self.left.store(left, Ordering::Relaxed);
            return;
        }
        self.left.store(self.whole, Ordering::Relaxed);
        // Nobody listens any more when the last burst is over.
        let _ = self.done.send(Instant::now());
    }
}

impl Handler for Count {
    type Conn = ();
    type Post = u64;
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &[u8]) {}

    fn on_post(&mut self, _: &mut Context<'_, Self>, _: u64) {
        self.tally.one_came();
    }
}

/// A loop on a thread of its own that is posted to.
struct Target {
    handle: LoopHandle,
    service: ServiceHandle<u64>,
    tally: Arc<Tally>,
    done: Receiver<Instant>,
    thread: JoinHandle<Result<(), Failure>>,
}

/// What is posted.
#[derive(Clone, Copy)]
enum Kind {
    /// A message to a service.
    Message,
    /// A closure for the loop.
    Task,
}

impl Bench {
    pub(crate) fn posts(&self, rows: &mut Rows) -> Result<(), Failure> {
        for (producers, most) in COSTS {
            self.posts_of(rows, producers, most)?;
        }
        Ok(())
    }

    fn posts_of(&self, rows: &mut Rows, producers: u32, most: f64) -> Result<(), Failure> {
        let case = format!("posts: {producers} producers, bursts of {BURST}");
        let mut costs = [Vec::new(), Vec::new()];
        let mut wakeups = [Vec::new(), Vec::new()];
        let mut tokio = Vec::new();
        for _ in 0..self.rounds {
            for ((kind, costs), wakeups) in
                [Kind::Message, Kind::Task].into_iter().zip(&mut costs).zip(&mut wakeups)
            {
                let target = Target::start()?;
                // The first burst finds every queue and page untouched, which is not what is measured.
                target.burst(kind, producers)?;
                let (cost, woken) = target.burst(kind, producers)?;
                costs.push(cost);
                wakeups.push(woken);
                target.end()?;
            }
            tokio.push(self.tokio_posts(producers)?);
        }
        let names = ["message to a service", "task for a loop"];
        for ((name, costs), wakeups) in names.iter().zip(&costs).zip(&wakeups) {
            rows.add(&case, "reactor", &format!("{name}, each"), "ns", costs, Some(Bar::AtMost(most)));
            let bar = Some(Bar::AtMost(WAKEUPS_MAX));
            rows.add(&case, "reactor", &format!("{name}, wake-ups each"), "1", wakeups, bar);
        }
        rows.add(&case, "tokio", "message through an unbounded channel, each", "ns", &tokio, None);
        Ok(())
    }

    /// The second of two bursts, as above.
    fn tokio_posts(&self, producers: u32) -> Result<f64, Failure> {
        let mut command = Command::new(self.workshop.program(Subject::Tokio, Job::Echo));
        command.args(["post", "--bursts", "2", "--producers", &producers.to_string()]);
        let output =
            command.args(["--tasks", &BURST.to_string()]).output().map_err(describe("tokio_peer"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let cost = text.lines().nth(1).and_then(|line| line.parse().ok());
        cost.ok_or_else(|| format!("tokio_peer said: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Target {
    fn start() -> Result<Self, Failure> {
        let (done, ended) = channel();
        let tally = Arc::new(Tally { left: AtomicU32::new(BURST), whole: BURST, done });
        let (tell, told) = channel();
        let counted = Arc::clone(&tally);
        let thread = thread::Builder::new().name("loop".to_owned()).spawn(move || {
            // Room for a whole burst: what is measured is the post, not the waiting for room.
            let room = usize::try_from(BURST).unwrap_or(usize::MAX);
            let mut config = LoopConfig::default();
            config.tasks_max = room;
            let mut target = EventLoop::new(config).map_err(describe("event loop"))?;
            let slot = target.handle().service_slot(room);
            let service = slot.handle();
            target
                .add_service(slot, ServiceConfig::default(), Count { tally: counted })
                .map_err(describe("service"))?;
            tell.send((target.handle(), service)).map_err(describe("handles"))?;
            target.run().map_err(describe("event loop"))
        });
        let thread = thread.map_err(describe("thread"))?;
        let (handle, service) = told.recv_timeout(TIMEOUT).map_err(describe("the loop's start"))?;
        Ok(Self { handle, service, tally, done: ended, thread })
    }

    /// Nanoseconds and wake-ups per post of a burst, from the first post until the last has been run.
    fn burst(&self, kind: Kind, producers: u32) -> Result<(f64, f64), Failure> {
        // The loop has gone to sleep by the end of it, and published its counters.
        thread::sleep(Duration::from_millis(20));
        let woken = self.handle.stats().wakeups;
        let start = Arc::new(Barrier::new(usize::try_from(producers).unwrap_or(1)));
        let threads: Vec<_> =
            (0..producers).map(|_| self.producer(kind, BURST / producers, &start)).collect();
        let mut since: Option<Instant> = None;
        for thread in threads {
            let begun = thread.join().map_err(|_| "a producer panicked")??;
            since = Some(since.map_or(begun, |first| first.min(begun)));
        }
        let ended = self.done.recv_timeout(TIMEOUT).map_err(describe("the end of a burst"))?;
        thread::sleep(Duration::from_millis(20));
        let woken = self.handle.stats().wakeups - woken;
        let time = ended.saturating_duration_since(since.ok_or("nobody posted")?);
        let woken = u32::try_from(woken).map_err(describe("wake-ups"))?;
        Ok((time.as_secs_f64() * 1e9 / f64::from(BURST), f64::from(woken) / f64::from(BURST)))
    }

    fn producer(&self, kind: Kind, posts: u32, start: &Arc<Barrier>) -> JoinHandle<Result<Instant, Failure>> {
        let (handle, service) = (self.handle.clone(), self.service.clone());
        let (tally, start) = (Arc::clone(&self.tally), Arc::clone(start));
        thread::spawn(move || {
            start.wait();
            let since = Instant::now();
            for number in 0..posts {
                match kind {
                    Kind::Message => {
                        service.post(u64::from(number)).map_err(|(error, _)| refused(&error))?;
                    }
                    Kind::Task => {
                        let tally = Arc::clone(&tally);
                        handle.post(move |_| tally.one_came()).map_err(|error| refused(&error))?;
                    }
                }
            }
            Ok(since)
        })
    }

    fn end(self) -> Result<(), Failure> {
        self.handle.stop();
        self.thread.join().map_err(|_| "the loop panicked")?
    }
}

fn refused(error: &PostError) -> Failure {
    format!("a post was refused: {error}")
}
