//! Whole processes: what is in the file after they return, panic, abort, or run into a limit. Each case runs this program again as a child.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]
#![allow(clippy::print_stdout, reason = "it is its own test harness")]

mod common;

use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use asynclog::{Builder, Guard, LogError, Overflow};
use common::{LONG, messages_of, never};

const CHILD: &str = "ASYNCLOG_TEST_CHILD";
const FILE: &str = "ASYNCLOG_TEST_FILE";

type Case = (&'static str, fn());

const CASES: [Case; 11] = [
    ("returning_from_main_writes_all", returning_from_main_writes_all),
    ("threads_that_end_with_main_lose_nothing", threads_that_end_with_main_lose_nothing),
    ("a_panic_in_main_is_the_last_record_and_nothing_is_lost", a_panic_in_main_is_the_last_record),
    ("a_panic_flushes_though_the_process_aborts", a_panic_flushes_though_the_process_aborts),
    ("what_a_barrier_confirmed_survives_an_abort", what_a_barrier_confirmed_survives_an_abort),
    ("the_hook_that_was_set_before_is_still_called", the_hook_that_was_set_before_is_still_called),
    ("a_process_has_one_logger_and_its_filter_reaches_the_facade", one_logger_and_its_filter),
    ("a_file_at_its_size_limit_stops_nothing", a_file_at_its_size_limit_stops_nothing),
    ("a_fork_waits_for_nothing_and_writes_nothing", a_fork_waits_for_nothing_and_writes_nothing),
    ("a_shutdown_by_signal_writes_all_and_is_proven", a_shutdown_by_signal_writes_all_and_is_proven),
    ("level_letters_have_colours_on_a_terminal_only", level_letters_have_colours_on_a_terminal_only),
];

fn main() -> ExitCode {
    if let Ok(child) = env::var(CHILD) {
        child_main(&child);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if env::args().any(|arg| arg == "--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    for (name, case) in CASES.iter().filter(|(name, _)| is_wanted(name)) {
        let held = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {}", if held { "ok" } else { "FAILED" });
        failed += usize::from(!held);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn command(child: &str, file: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(CHILD, child).env(FILE, file);
    command
}

fn run(child: &str, file: &Path) -> Output {
    command(child, file).output().unwrap()
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.log");
    (dir, file)
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

// The children. Their logs never flush by themselves, so that only what is claimed can have written a line.

fn child_main(name: &str) {
    match name {
        "return" => {
            let _guard = child_log();
            log_numbers(1000);
        }
        "threads" => {
            let _guard = child_log();
            let threads: Vec<_> = (0..64).map(|_| thread::spawn(|| log_numbers(20))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        "panic" => {
            let _guard = child_log();
            log_numbers(100);
            panic!("the\nend");
        }
        "panic-abort" => {
            std::panic::set_hook(Box::new(|_| std::process::abort()));
            let _guard = child_log();
            log_numbers(100);
            let worker = thread::Builder::new().name("worker".into());
            worker.spawn(|| panic!("in a thread")).unwrap().join().unwrap_err();
        }
        "barrier-abort" => {
            let guard = child_log();
            log_numbers(500);
            guard.barrier(LONG).unwrap();
            log::info!("not flushed");
            std::process::abort();
        }
        "hook" => {
            std::panic::set_hook(Box::new(|_| println!("the earlier hook")));
            let guard = child_log();
            thread::spawn(|| panic!("logged")).join().unwrap_err();
            drop(guard);
            thread::spawn(|| panic!("after the end")).join().unwrap_err();
        }
        "stderr" => {
            let _guard = Builder::new().install().unwrap();
            log::warn!("a warning");
        }
        "fork" => child_fork(),
        "signal" => child_signal(),
        "filter" => child_filter(),
        "limit" => child_limit(),
        other => panic!("no child is called {other}"),
    }
}

fn child_log() -> Guard {
    Builder::new().file(env::var(FILE).unwrap()).flush(never()).install().unwrap()
}

fn log_numbers(count: usize) {
    (0..count).for_each(|n| log::info!("{n}"));
}

fn child_filter() {
    let guard = Builder::new().file(env::var(FILE).unwrap()).filter("warn,process=info").install().unwrap();
    assert_eq!(log::max_level(), log::LevelFilter::Info);
    assert!(matches!(Builder::new().install(), Err(LogError::AlreadyInstalled)));
    log::info!("yes");
    log::debug!("no");
    log::info!(target: "other", "no");
    guard.set_filter("process=trace").unwrap();
    assert_eq!(log::max_level(), log::LevelFilter::Trace);
    log::trace!("yes");
    drop(guard);
    log::info!("after the end");
}

/// The parent has set a limit of some KiB for files.
fn child_limit() {
    let path = env::var(FILE).unwrap();
    let guard = Builder::new().file(&path).install().unwrap();
    for n in 0..200 {
        log::info!("{n:0100}");
    }
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    assert!(guard.stats().write_errors > 0);
    // An operator moves full files away until there is room for all.
    let mut moved = 0;
    while guard.barrier(LONG).is_err() {
        std::fs::rename(&path, format!("{path}.{moved}")).unwrap();
        moved += 1;
        assert!(moved < 50);
    }
    let stats = guard.stats();
    assert_eq!((stats.produced, stats.written), (200, 200));
}

/// Forks while its threads log, so that the log's own threads are met in all their states.
fn child_fork() {
    let overflow = Overflow::Block { at_most: Duration::from_secs(100_000) };
    let builder = Builder::new().file(env::var(FILE).unwrap()).overflow(overflow).thread_buffer(16 * 1024);
    let guard = Arc::new(builder.install().unwrap());
    let end = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let end = Arc::clone(&end);
            thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    log::info!("in the parent");
                    thread::yield_now();
                }
            })
        })
        .collect();
    for _ in 0..50 {
        log::info!("a fork follows");
        let in_fork = Arc::clone(&guard);
        let mut command = Command::new("true");
        let work = move || {
            (0..1000).for_each(|n| log::info!("in the fork {n}"));
            log::error!("in the fork, at once");
            match in_fork.barrier(LONG) {
                Err(LogError::Closed) => Ok(()),
                _ => Err(std::io::ErrorKind::Other.into()),
            }
        };
        #[expect(unsafe_code, reason = "the only fork that std has")]
        // SAFETY: what runs between fork and exec takes memory and no lock that another thread of the parent may hold, but that of the allocator, which
        // the C library releases in a fork.
        unsafe {
            command.pre_exec(work);
        }
        assert!(command.status().unwrap().success());
    }
    end.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    drop(guard);
}

/// Ends as a server does: a signal stops the main thread's wait, while others still log.
fn child_signal() {
    let guard = Builder::new().file(env::var(FILE).unwrap()).flush(never()).install().unwrap();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).unwrap();
    for _ in 0..4 {
        thread::spawn(|| {
            loop {
                log::info!("at work");
                thread::yield_now();
            }
        });
    }
    log_numbers(100);
    println!("ready");
    assert_eq!(signals.forever().next(), Some(signal_hook::consts::SIGTERM));
    log::info!("stopping");
    drop(guard);
}

// The cases.

fn verified(file: &Path) -> asynclog::RunReport {
    let mut verifier = asynclog::Verifier::default();
    verifier.read("a.log", BufReader::new(File::open(file).unwrap())).unwrap();
    let mut report = verifier.finish();
    assert!(report.is_proven() && report.runs[0].whole, "{report:?}");
    report.runs.remove(0)
}

fn a_fork_waits_for_nothing_and_writes_nothing() {
    let (_dir, file) = in_folder();
    let output = run("fork", &file);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(verified(&file).dropped, 0);
    let messages = messages_of(&file);
    assert_eq!(messages.iter().filter(|message| *message == "a fork follows").count(), 50);
    assert!(messages.iter().all(|message| !message.contains("in the fork")));
}

fn a_shutdown_by_signal_writes_all_and_is_proven() {
    let (_dir, file) = in_folder();
    let mut child = command("signal", &file).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let run = verified(&file);
    let messages = messages_of(&file);
    for expected in numbers(100).iter().map(String::as_str).chain(["stopping"]) {
        assert_eq!(messages.iter().filter(|message| *message == expected).count(), 1, "{expected}");
    }
    // Whoever still logged was written or counted.
    assert!(run.written > 101);
}

fn returning_from_main_writes_all() {
    let (_dir, file) = in_folder();
    assert!(run("return", &file).status.success());
    assert_eq!(messages_of(&file), numbers(1000));
}

fn threads_that_end_with_main_lose_nothing() {
    let (_dir, file) = in_folder();
    assert!(run("threads", &file).status.success());
    let mut found = messages_of(&file);
    let mut expected: Vec<_> = (0..64).flat_map(|_| numbers(20)).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn a_panic_in_main_is_the_last_record() {
    let (_dir, file) = in_folder();
    assert_eq!(run("panic", &file).status.code(), Some(101));
    let messages = messages_of(&file);
    assert_eq!(messages[..100], numbers(100));
    assert_eq!(messages[100..], ["panicked: the\\nend"]);
    assert!(std::fs::read_to_string(&file).unwrap().contains(" E main panic process.rs:"));
}

fn a_panic_flushes_though_the_process_aborts() {
    let (_dir, file) = in_folder();
    assert!(!run("panic-abort", &file).status.success());
    let messages = messages_of(&file);
    assert_eq!(messages[..100], numbers(100));
    assert_eq!(messages[100..], ["panicked: in a thread"]);
    assert!(std::fs::read_to_string(&file).unwrap().contains(" E worker panic process.rs:"));
}

fn what_a_barrier_confirmed_survives_an_abort() {
    let (_dir, file) = in_folder();
    assert!(!run("barrier-abort", &file).status.success());
    assert_eq!(messages_of(&file)[..500], numbers(500));
}

fn the_hook_that_was_set_before_is_still_called() {
    let (_dir, file) = in_folder();
    let output = run("hook", &file);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "the earlier hook\nthe earlier hook\n");
    assert_eq!(messages_of(&file), ["panicked: logged"]);
}

fn one_logger_and_its_filter() {
    let (_dir, file) = in_folder();
    let output = run("filter", &file);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages_of(&file), ["yes", "yes"]);
}

/// `ulimit -f` counts 512 or 1,024 bytes, as the shell pleases; 200 lines are more than eight of either.
fn a_file_at_its_size_limit_stops_nothing() {
    let (dir, file) = in_folder();
    let program = command("limit", &file);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\""]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        shell.env(name, value.unwrap());
    }
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("asynclog: cannot write to "));

    // A full file ends within a line; that line stands whole in the next one.
    let mut found = BTreeSet::new();
    let mut told = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        for message in common::messages(whole) {
            if message.contains("because writing failed") {
                told += 1;
            } else {
                assert!(found.insert(message));
            }
        }
    }
    assert_eq!(found, (0..200).map(|n| format!("{n:0100}")).collect());
    assert!(told > 0);
}

fn level_letters_have_colours_on_a_terminal_only() {
    let (_dir, file) = in_folder();
    let plain = run("stderr", &file).stderr;
    assert!(plain.windows(11).any(|part| part == b"Z W main pr") && !plain.contains(&0x1b), "{plain:?}");

    let on_terminal = |name: &str, value: &str| {
        let terminal = Terminal::new();
        let mut child = command("stderr", &file);
        child.env_remove("NO_COLOR").env("TERM", "xterm").env(name, value).stderr(terminal.end());
        let status = child.status().unwrap();
        // Its other end closes with it.
        drop(child);
        assert!(status.success());
        terminal.shown()
    };
    let coloured = on_terminal("TERM", "xterm");
    assert!(coloured.contains("Z \x1b[33mW\x1b[0m main process "), "{coloured:?}");
    for (name, value) in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        let plain = on_terminal(name, value);
        assert!(plain.contains("Z W main process ") && !plain.contains('\x1b'), "{plain:?}");
    }
}

/// A terminal that nobody looks at.
struct Terminal(std::os::fd::OwnedFd);

impl Terminal {
    fn new() -> Self {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let ours = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        Self(ours)
    }

    fn end(&self) -> File {
        let name = rustix::pty::ptsname(&self.0, Vec::new()).unwrap();
        File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap()
    }

    /// What was written to it, once all who could write are gone.
    fn shown(self) -> String {
        let mut shown = Vec::new();
        let mut buffer = [0; 4096];
        // The end of a terminal is an error.
        while let Ok(read @ 1..) = rustix::io::read(&self.0, &mut buffer) {
            shown.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(shown).unwrap()
    }
}
