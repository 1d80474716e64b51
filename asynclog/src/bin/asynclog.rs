//! `asynclog verify FILES…`: proves that log files are whole. Exit code 0 when they are, 1 when not, 2 for wrong usage.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use asynclog::{Verifier, VerifyReport};

const USAGE: &str = "usage: asynclog verify FILES...

Proves that nothing is missing from the files of a log: every record's number is there or told to be dropped, and
every part's counts and checksum are right. Files may be given in any order, and may
have been renamed. Exit code: 0 proven, 1 not proven, 2 wrong usage.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, files)) if command == "verify" && !files.is_empty() => verify(files.to_vec()),
        Some((flag, [])) if flag == "--help" || flag == "-h" => {
            io::stdout().write_all(USAGE.as_bytes()).map(|()| true)
        }
        _ => {
            let _ = io::stderr().write_all(USAGE.as_bytes());
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "asynclog: {error}");
            ExitCode::from(1)
        }
    }
}

fn verify(files: Vec<String>) -> io::Result<bool> {
    let at = |name: &str, error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    let mut placed = Vec::new();
    for name in files {
        let place = File::open(&name).and_then(|file| Verifier::place(BufReader::new(file)));
        placed.push((place.map_err(|error| at(&name, error))?, name));
    }
    placed.sort();
    let mut verifier = Verifier::default();
    for (_, name) in &placed {
        let read = File::open(name).and_then(|file| verifier.read(name, BufReader::new(file)));
        read.map_err(|error| at(name, error))?;
    }
    let report = verifier.finish();
    print(&report, &mut io::stdout().lock())?;
    Ok(report.is_proven())
}

fn print(report: &VerifyReport, out: &mut impl Write) -> io::Result<()> {
    for run in &report.runs {
        let (written, dropped, threads) = (run.written, run.dropped, run.threads);
        let end = if run.whole { "whole" } else { "without its beginning or its end" };
        let produced = written + dropped;
        writeln!(
            out,
            "run {}: {produced} produced = {written} written + {dropped} dropped, by {threads} threads, {end}",
            run.run
        )?;
    }
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    if report.findings_unlisted > 0 {
        writeln!(out, "and {} more", report.findings_unlisted)?;
    }
    writeln!(out, "{}", if report.is_proven() { "proven" } else { "NOT proven" })
}
