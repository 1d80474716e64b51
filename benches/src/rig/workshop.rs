//! Where the subjects are built, and where their programs are then.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::failure::{Failure, describe};
use super::server::Server;
use super::subject::{Job, Subject};
use crate::limit;

/// The programs of a benchmark.
#[derive(Debug)]
pub struct Workshop {
    /// The target folder of cargo.
    target: PathBuf,
    /// Where results, and what the C compilers make, go.
    folder: PathBuf,
    load: PathBuf,
    /// Takes the place of the reactor's example.
    server: Option<PathBuf>,
}

impl Workshop {
    /// For a benchmark's `CARGO_TARGET_TMPDIR` and its `CARGO_BIN_EXE_echoload`. Nothing is built yet. Raises the descriptor limit as far as it goes, also for
    /// the processes that are started.
    ///
    /// # Errors
    /// When the folder cannot be made, or a program that every run needs is not there.
    pub fn new(temporary: &str, load: &str, server: Option<PathBuf>) -> Result<Self, Failure> {
        let target = Path::new(temporary).parent().ok_or("no target folder")?.to_owned();
        let folder = target.join("bench");
        fs::create_dir_all(&folder).map_err(describe(folder.display()))?;
        limit::raise();
        for program in ["taskset", "setpriv"] {
            if !has(program, "--version") {
                return Err(format!("needs {program}"));
            }
        }
        Ok(Self { target, folder, load: load.into(), server })
    }

    /// Where the results go.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Builds the subjects.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build(&self, subjects: &[Subject], jobs: &[Job]) -> Result<(), Failure> {
        for subject in subjects {
            match (subject, subject.source()) {
                (Subject::Reactor, _) => self.build_reactor(jobs)?,
                (Subject::Tokio, _) => {
                    self.cargo(&["-p", "benches", "--features", "peers", "--bin", "tokio_peer"])?;
                }
                (_, Some(source)) => {
                    let mut command = Command::new(source.compiler);
                    command.arg("-O2").arg("-o").arg(self.program(*subject, Job::Echo));
                    // Libraries come behind what needs them.
                    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(source.file);
                    run(command.arg(file).args(source.flags))?;
                }
                (_, None) => {}
            }
        }
        Ok(())
    }

    fn build_reactor(&self, jobs: &[Job]) -> Result<(), Failure> {
        let wanted = jobs.iter().filter(|job| !is_echo(**job) || self.server.is_none());
        let examples: Vec<&str> = wanted.flat_map(|job| ["--example", example(*job)]).collect();
        if examples.is_empty() { Ok(()) } else { self.cargo(&[&["-p", "reactor"], &examples[..]].concat()) }
    }

    fn cargo(&self, args: &[&str]) -> Result<(), Failure> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--release", "--manifest-path"]).arg(manifest);
        run(command.arg("--target-dir").arg(&self.target).args(args))
    }

    /// Where a subject's program is.
    #[must_use]
    pub fn program(&self, subject: Subject, job: Job) -> PathBuf {
        match (subject, &self.server) {
            (Subject::Reactor, Some(server)) if is_echo(job) => server.clone(),
            (Subject::Reactor, _) => self.target.join("release/examples").join(example(job)),
            (Subject::Tokio, _) => self.target.join("release/tokio_peer"),
            _ => self.folder.join(format!("{}_peer", subject.name())),
        }
    }

    /// A subject's program with its arguments.
    #[must_use]
    pub fn command(&self, subject: Subject, job: Job, threads: usize) -> Vec<OsString> {
        let mut words = vec![self.program(subject, job).into_os_string()];
        words.extend(["--listen", "127.0.0.1:0", "--threads", &threads.to_string()].map(OsString::from));
        if subject == Subject::Tokio && job != Job::Echo {
            words.extend(["--buffer", "65536"].map(OsString::from));
        }
        if job == Job::Discard && subject != Subject::Reactor {
            words.push("--discard".into());
        }
        words
    }

    /// Runs `echoload` on these cores against a server, and returns its report. A run in which a byte was lost is a failure, not a figure.
    ///
    /// # Errors
    /// What `echoload` says.
    pub fn load(&self, cores: &str, server: &Server, args: &[&str]) -> Result<Value, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(&self.load);
        command.args(["--json", "--addr", server.addr(), "--pid", &server.pid().to_string()]).args(args);
        let output = command.output().map_err(describe("taskset"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("echoload {} on {}: {said}{}", args.join(" "), server.name(), server.said()));
        }
        serde_json::from_slice(&output.stdout).map_err(describe("not a report"))
    }
}

fn example(job: Job) -> &'static str {
    match job {
        Job::Echo | Job::Blocks => "echo",
        Job::Discard => "discard",
        Job::Hub => "chat_hub",
    }
}

fn is_echo(job: Job) -> bool {
    matches!(job, Job::Echo | Job::Blocks)
}

/// Whether a program is there.
pub(crate) fn has(program: &str, flag: &str) -> bool {
    Command::new(program).arg(flag).output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output().map_err(describe(command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{} failed:\n{}", command.get_program().display(), String::from_utf8_lossy(&output.stderr)))
}
