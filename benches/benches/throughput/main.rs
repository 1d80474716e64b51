//! Mebibytes per second: echoed blocks of every size over any number of connections, and bulk transfers one way, beside bare epoll and tokio.
//!
//! `cargo bench -p benches --bench throughput -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use benches::rig::{Failure, Job, Server, Subject, Workshop, Wrapper};
use benches::rows::{Bar, Rows, median};
use clap::{Parser, ValueEnum};
use serde_json::Value;

/// Mebibytes per second through the reactor, beside bare epoll and tokio.
///
/// Every run has a fresh server process. With one loop the server has core 0 and the load core 1; with two loops all share both cores, and the load has two threads. Subjects
/// take turns, first in one order, then in the other; figures are medians over the rounds, ratios those of the rounds, against the peer with the better
/// median. The results go to target/bench/throughput.json too.
#[derive(Debug, Parser)]
#[command(name = "throughput")]
struct Options {
    /// What to measure; all when none is named
    cases: Vec<Case>,
    /// A short run, to see that it works; its figures are worth little
    #[arg(long)]
    quick: bool,
    /// Rounds of each cell, nearly twice as many of a bulk transfer [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds that each load is measured [default: 0.7, or 0.2 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Only cells whose name has this in it, such as "1 MiB", "x 100," or "2 loops"
    #[arg(long, value_name = "TEXT")]
    cell: Option<String>,
    /// asio, libevent and libuv too, where their development packages are installed; they have no bar
    #[arg(long)]
    others: bool,
    /// A built echo server to take the place of the reactor's example
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Blocks go out and come back
    Echo,
    /// Bytes go out
    Bulk,
}

const SIZES: [(&str, u32); 5] =
    [("64 B", 64), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];
const CONNECTIONS: [u32; 4] = [1, 10, 100, 1000];
/// Connections of a bulk transfer.
const BULK_CONNECTIONS: [u32; 2] = [1, 10];
const LOOPS: [usize; 2] = [1, 2];

/// Of the better of the two peers, the reactor reaches at least so much.
const SHARE_MIN: f64 = 0.95;

/// Bytes under way from which on a run takes longer.
const LARGE: u64 = 50_000_000;

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("only built: `cargo bench -p benches --bench throughput` runs it");
        return ExitCode::SUCCESS;
    }
    match Bench::new(&options).and_then(|bench| bench.run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("throughput: a bar was not reached");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("throughput: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Who, where and how often.
struct Bench {
    workshop: Workshop,
    subjects: Vec<Subject>,
    rounds: usize,
    seconds: f64,
    cell: Option<String>,
}

/// What is done in a cell.
struct Cell {
    name: String,
    job: Job,
    size: u32,
    connections: u32,
    loops: usize,
}

impl Cell {
    fn all(cases: &[Case]) -> Vec<Self> {
        let chosen = |case| cases.is_empty() || cases.contains(&case);
        let mut cells = Vec::new();
        for loops in LOOPS {
            let word = if loops == 1 { "loop" } else { "loops" };
            for (text, size) in SIZES.iter().filter(|_| chosen(Case::Echo)) {
                cells.extend(CONNECTIONS.map(|connections| Self {
                    name: format!("echo {text} x {connections}, {loops} {word}"),
                    job: Job::Blocks,
                    size: *size,
                    connections,
                    loops,
                }));
            }
            for connections in BULK_CONNECTIONS.into_iter().filter(|_| chosen(Case::Bulk)) {
                cells.push(Self {
                    name: format!("bulk one way x {connections}, {loops} {word}"),
                    job: Job::Discard,
                    size: 64 << 10,
                    connections,
                    loops,
                });
            }
        }
        cells
    }

    /// The cores of the server and those of the load.
    fn cores(&self) -> (&'static str, &'static str) {
        if self.loops == 1 { ("0", "1") } else { ("0,1", "0,1") }
    }
}

impl Bench {
    fn new(options: &Options) -> Result<Self, Failure> {
        if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
            return Err("needs two cores: one for the server, one for the load".to_owned());
        }
        let (temporary, load) = (env!("CARGO_TARGET_TMPDIR"), env!("CARGO_BIN_EXE_echoload"));
        let workshop = Workshop::new(temporary, load, options.server.clone())?;
        let mut subjects = Subject::MAIN.to_vec();
        if options.others {
            subjects.extend(Subject::OTHERS.into_iter().filter(|subject| subject.is_installed()));
        }
        let (rounds, seconds) = if options.quick { (1, 0.2) } else { (5, 0.7) };
        Ok(Self {
            workshop,
            subjects,
            rounds: options.rounds.unwrap_or(rounds).max(1),
            seconds: options.seconds.unwrap_or(seconds),
            cell: options.cell.clone(),
        })
    }

    fn run(&self, options: &Options) -> Result<bool, Failure> {
        let folder = self.workshop.folder();
        eprintln!("{}; load average before: {}", benches::machine(folder), benches::load_average());
        let chosen = |cell: &Cell| self.cell.as_ref().is_none_or(|text| cell.name.contains(text.as_str()));
        let cells: Vec<Cell> = Cell::all(&options.cases).into_iter().filter(chosen).collect();
        let mut jobs = vec![Job::Blocks];
        jobs.extend(cells.iter().any(|cell| cell.job == Job::Discard).then_some(Job::Discard));
        self.workshop.build(&self.subjects, &jobs)?;
        let mut rows = Rows::default();
        for cell in &cells {
            self.measure(&mut rows, cell)?;
        }
        println!("{rows}");
        let file = folder.join("throughput.json");
        rows.write(&file).map_err(|e| format!("could not write {}: {e}", file.display()))?;
        Ok(rows.hold())
    }

    fn measure(&self, rows: &mut Rows, cell: &Cell) -> Result<(), Failure> {
        // Only these have a discard and several loops.
        let peers = self.subjects.iter().filter(|subject| {
            Subject::MAIN.contains(subject) || (cell.loops == 1 && cell.job == Job::Blocks)
        });
        let subjects: Vec<Subject> = peers.copied().collect();
        let mut values = vec![Vec::new(); subjects.len()];
        let mut costs = vec![Vec::new(); subjects.len()];
        // A bulk transfer has two speeds: once a server has fallen behind, what is queued leaves the caches, and it stays behind. More rounds show both.
        let rounds = if cell.job == Job::Discard { 2 * self.rounds - 1 } else { self.rounds };
        for round in 0..rounds {
            let mut turns: Vec<_> = subjects.iter().zip(values.iter_mut().zip(&mut costs)).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (subject, (values, costs)) in turns {
                let (rate, cores) = self.rate(*subject, cell)?;
                values.push(rate);
                costs.push(cores * 1e6 / rate.max(1e-9));
            }
        }
        let [ours, epoll, tokio, ..] = values.as_slice() else { return Ok(()) };
        let middle = |values: &[f64]| median(values).unwrap_or_default();
        // The better one over all rounds: the better one of each round would be whoever luck was with.
        let best = if middle(epoll) >= middle(tokio) { epoll } else { tokio };
        for ((subject, values), costs) in subjects.iter().zip(&values).zip(&costs) {
            rows.add(&cell.name, subject.name(), "throughput one way", "MiB/s", values, None);
            if *subject == Subject::Reactor {
                rows.compare(ours, best, Bar::AtLeast(SHARE_MIN));
            }
            // The sender's core is full first, so the rate says little of the server.
            if cell.job == Job::Discard {
                rows.add(&cell.name, subject.name(), "server CPU per MiB", "us", costs, None);
            }
        }
        let text = |values: &[f64]| benches::number(middle(values));
        let (name, ours, epoll, tokio) = (&cell.name, text(ours), text(epoll), text(tokio));
        eprintln!("{name}: reactor {ours}, epoll {epoll}, tokio {tokio} MiB/s");
        Ok(())
    }

    /// Seconds to measure and to warm up. Where many large blocks are under way, one takes a good part of a second to come back.
    fn time(&self, cell: &Cell) -> (String, String) {
        let under_way = u64::from(cell.size) * u64::from(cell.connections);
        let (seconds, warmup) =
            if under_way < LARGE { (self.seconds, 0.2) } else { (4.0 * self.seconds, 1.0) };
        (seconds.to_string(), warmup.to_string())
    }

    /// Mebibytes per second, and the cores that the server used.
    fn rate(&self, subject: Subject, cell: &Cell) -> Result<(f64, f64), Failure> {
        let (server_cores, load_cores) = cell.cores();
        let command = self.workshop.command(subject, cell.job, cell.loops);
        let server = Server::start(Wrapper::None, server_cores, &command)?;
        let connections = cell.connections.to_string();
        let threads = cell.loops.min(usize::try_from(cell.connections).unwrap_or(1)).to_string();
        let size = cell.size.to_string();
        let shape = if cell.job == Job::Discard { "sink" } else { "echo" };
        let load = ["--shape", shape, "--connections", &connections, "--size", &size, "--threads", &threads];
        let (seconds, warmup) = self.time(cell);
        let time = ["--seconds", &seconds, "--warmup", &warmup];
        let report = self.workshop.load(load_cores, &server, &[&load[..], &time].concat())?;
        let number = |pointer| report.pointer(pointer).and_then(Value::as_f64);
        number("/mib_per_second")
            .zip(number("/server_cores"))
            .ok_or_else(|| format!("no rate in the report of the load: {report}"))
    }
}
