//! One run of one logger, in a process of its own; it prints its figures as a line of JSON.

use std::fs;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::subject::Subject;

/// What a child is to do.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) case: String,
    pub(crate) subject: Subject,
    pub(crate) threads: usize,
    /// Of all threads together.
    pub(crate) records: u64,
    pub(crate) folder: PathBuf,
}

const VARIABLE: &str = "LOG_BENCH_JOB";

/// Records of a burst, which no logger's queue is too small for.
const BURST: u64 = 64;
const PAUSE: Duration = Duration::from_millis(1);
/// How long a logger may take to bring everything to the file after its end was asked for.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long the disk stalls.
const STALL: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error>;

impl Job {
    pub(crate) fn give_to(&self, command: &mut Command) {
        let Self { case, subject, threads, records, folder } = self;
        command.env(VARIABLE, format!("{case} {} {threads} {records} {}", subject.name(), folder.display()));
    }

    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let mut words = text.splitn(5, ' ');
        let case = words.next()?.to_owned();
        let name = words.next()?;
        let subject = Subject::all().into_iter().find(|subject| subject.name() == name)?;
        let (threads, records) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { case, subject, threads, records, folder: words.next()?.into() })
    }

    pub(crate) fn run(&self) -> ExitCode {
        let figures = match self.case.as_str() {
            "caller" => self.caller(),
            "rate" => self.rate(),
            "stall" => stall(),
            "kill" => crate::kill::child(&self.folder, true),
            "kill-unpaced" => crate::kill::child(&self.folder, false),
            other => Err(format!("no case is called {other}").into()),
        };
        match figures {
            Ok(figures) => {
                println!("{figures}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn caller(&self) -> Result<Value, Failure> {
        let end = self.subject.start(&self.folder)?;
        let each = self.records / self.threads as u64;
        let together = Arc::new(Barrier::new(self.threads));
        let mut all = histogram()?;
        let threads: Vec<_> = (0..self.threads)
            .map(|_| {
                let (subject, together, times) = (self.subject, Arc::clone(&together), all.clone());
                thread::spawn(move || {
                    (0..BURST).for_each(|n| subject.log(n)); // warms up
                    together.wait();
                    bursts(subject, each, times)
                })
            })
            .collect();
        for thread in threads {
            all.add(thread.join().map_err(|_| "a caller panicked")?)?;
        }
        end();
        let mut figures = quantiles(&all);
        let net = all.value_at_quantile(0.5).saturating_sub(clock()?);
        if let Some(figures) = figures.as_object_mut() {
            figures.insert("p50_net_ns".into(), net.into());
        }
        Ok(figures)
    }

    fn rate(&self) -> Result<Value, Failure> {
        let end = self.subject.start(&self.folder)?;
        let each = self.records / self.threads as u64;
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| (0..each).for_each(|n| self.subject.log(n)));
            }
        });
        end();
        let expected = each * self.threads as u64;
        let until = Instant::now() + SETTLE_MAX;
        let mut counter = Counter::default();
        while counter.lines(&self.folder)? < expected {
            if Instant::now() > until {
                return Err(format!("{} of {expected} records lines are in the file", counter.found).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        // Reading the file back costs every logger the same, and is part of the time.
        let seconds = begin.elapsed().as_secs_f64();
        let found = records_in(&self.folder)?;
        if found != expected {
            return Err(format!("{expected} records were logged, {found} are in the file").into());
        }
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let rate = expected as f64 / seconds;
        Ok(json!({ "per_second": rate }))
    }
}

/// Counts the lines in the files of a folder, reading on where it had stopped.
#[derive(Default)]
struct Counter {
    read: std::collections::BTreeMap<PathBuf, u64>,
    found: u64,
}

impl Counter {
    fn lines(&mut self, folder: &Path) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 20];
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let mut file = fs::File::open(&path)?;
            let read = self.read.entry(path).or_default();
            file.seek(SeekFrom::Start(*read))?;
            loop {
                let got = file.read(&mut buffer)?;
                let (text, _) = buffer.split_at(got);
                if text.is_empty() {
                    break;
                }
                *read += got as u64;
                self.found += memchr::memchr_iter(b'\n', text).count() as u64;
            }
        }
        Ok(self.found)
    }
}

/// The lines with a record of ours; what else a logger writes is none.
fn records_in(folder: &Path) -> io::Result<u64> {
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        for line in io::BufReader::new(fs::File::open(entry?.path())?).lines() {
            found += u64::from(line?.contains("conversation "));
        }
    }
    Ok(found)
}

fn bursts(subject: Subject, records: u64, mut times: Histogram<u64>) -> Histogram<u64> {
    for n in 0..records {
        let begin = Instant::now();
        subject.log(n);
        times.saturating_record(nanos(begin.elapsed()));
        if n % BURST == BURST - 1 {
            thread::sleep(PAUSE);
        }
    }
    times
}

/// What reading the clock twice takes, in nanoseconds: a part of all times in the caller.
fn clock() -> Result<u64, Failure> {
    let mut times = histogram()?;
    for _ in 0..10_000 {
        let begin = Instant::now();
        times.saturating_record(nanos(begin.elapsed()));
    }
    Ok(times.value_at_quantile(0.5))
}

/// A target that takes a second for its first write.
struct Stalls(Arc<AtomicBool>);

impl Write for Stalls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.0.swap(true, Ordering::SeqCst) {
            thread::sleep(STALL);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A loop thread logs a record every 10 us while the disk stalls, which is more than there is room for.
fn stall() -> Result<Value, Failure> {
    use log::Log;
    let stalled = Arc::new(AtomicBool::new(false));
    let (log, guard) = asynclog::Builder::new().writer(Stalls(Arc::clone(&stalled))).build()?;
    let mut times = histogram()?;
    asynclog::mark_loop_thread();
    let (mut logged, begin) = (0_u64, Instant::now());
    while begin.elapsed() < STALL {
        let before = Instant::now();
        let args =
            format_args!("conversation {} has {} members after {} us", logged, logged & 63, logged % 977);
        log.log(&log::Record::builder().target("bench").args(args).build());
        times.saturating_record(nanos(before.elapsed()));
        logged += 1;
        while before.elapsed() < Duration::from_micros(10) {
            std::hint::spin_loop();
        }
    }
    drop(guard);
    let stats = log.stats();
    if !stalled.load(Ordering::SeqCst) || stats.dropped() == 0 {
        return Err("nothing stalled or nothing was dropped: nothing is shown".into());
    }
    let mut figures = quantiles(&times);
    if let Some(figures) = figures.as_object_mut() {
        figures.insert("miscounted".into(), logged.abs_diff(stats.written + stats.dropped()).into());
        figures.insert("dropped".into(), stats.dropped().into());
    }
    Ok(figures)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    // A bound, for a histogram that grows does not grow by what is recorded as saturating.
    Ok(Histogram::new_with_max(60_000_000_000, 3)?)
}

fn quantiles(times: &Histogram<u64>) -> Value {
    json!({ "p50_ns": times.value_at_quantile(0.5), "p999_ns": times.value_at_quantile(0.999) })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
