//! `kill -9` at random moments: how many records that a caller had logged are not in the file, and whether the file is whole up to there.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use asynclog::{FlushConfig, Overflow, Verifier};
use benches::rows::{Bar, Rows};
use serde_json::Value;

use crate::child::Job;
use crate::subject::Subject;

/// The moment is drawn from the time between these, after the first record.
const LIFE_MS: std::ops::Range<u64> = 1..250;
/// A child that does not come so far has failed.
const START_MAX: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

/// A busy server, and a pace that a disk keeps up with.
const GAP: Duration = Duration::from_micros(50);

/// What may be under way of one thread at most: what is in its buffer and what the log thread has just taken out of it, a block that is gathered, four that wait and one that
/// is written. As `asynclog`'s page says, with the settings by default.
const UNPACED_BYTES_MAX: u64 = 2 * 256 * 1024 + 6 * 64 * 1024;
/// A record of this file has at least so many bytes in a buffer: its head, and `log::kill`, the file's name, the message.
const RECORD_BYTES_MIN: u64 = 44 + 9 + 27 + 39;

/// Who logs without a pause writes down how many records it has logged once for so many, so that the log does most of the work.
const UNPACED_COUNT: u64 = 64;

/// Logs for ever, 20,000 records a second or as many as it can, and writes down, in one system call, how many it has logged.
pub(crate) fn child(folder: &Path, paced: bool) -> Result<Value, Failure> {
    let counts = File::create(folder.join("logged"))?;
    // Who logs without a pause waits for room, so that nothing is missing but for the kill.
    let overflow = if paced { Overflow::Drop } else { Overflow::Block { at_most: START_MAX } };
    let _guard = asynclog::Builder::new().file(folder.join("a.log")).overflow(overflow).install()?;
    for n in 1_u64.. {
        log::info!("conversation {} has {} members after {} us", n, n & 63, n % 977);
        if !paced {
            if n % UNPACED_COUNT == 0 {
                counts.write_all_at(&n.to_le_bytes(), 0)?;
            }
            continue;
        }
        counts.write_all_at(&n.to_le_bytes(), 0)?;
        let until = Instant::now() + GAP;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
    Ok(Value::Null)
}

/// Kills so many children.
pub(crate) fn measure(kills: usize, folder: Option<&Path>, rows: &mut Rows) -> Result<(), String> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()));
    eprintln!("kill: seed {:#x}", random.0);
    let bound = FlushConfig::default().records as u64;
    measure_case("kill", kills, bound, &mut random, folder, rows)?;
    let bound = UNPACED_BYTES_MAX / RECORD_BYTES_MIN;
    measure_case("kill-unpaced", kills.div_ceil(4), bound, &mut random, folder, rows)
}

fn measure_case(
    case: &str,
    kills: usize,
    bound: u64,
    random: &mut Random,
    folder: Option<&Path>,
    rows: &mut Rows,
) -> Result<(), String> {
    let (mut most, mut unproven) = (0_u64, 0_u32);
    for round in 1..=kills {
        let life = Duration::from_millis(LIFE_MS.start + random.next() % (LIFE_MS.end - LIFE_MS.start));
        let (lost, proven) = kill(case, life, folder).map_err(|error| format!("kill {round}: {error}"))?;
        most = most.max(lost);
        unproven += u32::from(!proven);
    }
    let case = match case {
        "kill" => format!("kill -9, {kills} times"),
        _ => format!("kill -9 without a pause, {kills} times"),
    };
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let (most, bound) = (most as f64, bound as f64);
    rows.add(&case, "asynclog", "most records lost", "records", &[most], Some(Bar::AtMost(bound)));
    rows.add(&case, "asynclog", "files with a hole", "files", &[f64::from(unproven)], Some(Bar::AtMost(0.0)));
    Ok(())
}

/// One child's life and death: the records that it had logged and that are not in the file, and whether `verify` finds no fault with it.
fn kill(case: &str, life: Duration, folder: Option<&Path>) -> Result<(u64, bool), Failure> {
    let folder = match folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let mut command = Command::new(std::env::current_exe()?);
    let job = Job {
        case: case.into(),
        subject: Subject::Asynclog,
        threads: 1,
        records: 0,
        folder: folder.path().into(),
    };
    job.give_to(&mut command);
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let killed = kill_after(&mut child, life, &folder.path().join("logged"));
    child.kill()?;
    child.wait()?;
    killed?;
    let mut count = [0; 8];
    File::open(folder.path().join("logged"))?.read_exact_at(&mut count, 0)?;
    let logged = u64::from_le_bytes(count);
    let mut verifier = Verifier::default();
    let path = folder.path().join("a.log");
    verifier.read("a.log", BufReader::new(File::open(path)?))?;
    let report = verifier.finish();
    let written: u64 = report.runs.iter().map(|run| run.written + run.dropped).sum();
    // A child killed before its first flush has no run in its file.
    Ok((logged.saturating_sub(written), report.findings.is_empty()))
}

fn kill_after(child: &mut Child, life: Duration, logged: &Path) -> Result<(), Failure> {
    let until = Instant::now() + START_MAX;
    while std::fs::metadata(logged).map_or(0, |meta| meta.len()) < 8 {
        if Instant::now() > until || child.try_wait()?.is_some() {
            return Err("the child did not log".into());
        }
        thread::yield_now();
    }
    thread::sleep(life);
    Ok(())
}

/// Numbers that look random, from a seed that is printed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
