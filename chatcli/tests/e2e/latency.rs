//! A measurement: how long a keystroke takes to the screen, with 100,000 messages in memory and 1,000 more arriving per second.
//!
//! `cargo test --release -p chatcli --test e2e -- --ignored --nocapture latency`

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use testkit::{Chatd, LineClient};

const WRITERS: u64 = 10;
const MESSAGES: u64 = 10_000;
const PER_SECOND: u64 = 1_000;
const KEYS: usize = 1_000;

/// In no message: when it is printed, the key has come to the screen. Two in turns, for what replaces its like is not printed again.
const KEY_CHARS: [&str; 2] = ["Ω", "Ψ"];

/// `chatcli` in a terminal of our own, which adds no time.
struct Terminal {
    child: Child,
    keys: File,
    /// Which key was seen on the screen, and when.
    seen: Receiver<(usize, Instant)>,
}

impl Terminal {
    fn open(args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let io = || Stdio::from(slave.try_clone().unwrap());
        // A session of its own, so that it finds no other terminal than this.
        let child = Command::new("setsid")
            .arg(env!("CARGO_BIN_EXE_chatcli"))
            .args(args)
            .env("TERM", "xterm-256color")
            .stdin(io())
            .stdout(io())
            .stderr(io())
            .spawn()
            .unwrap();
        let mut screen = File::from(master.try_clone().unwrap());
        let (tell, seen) = channel();
        thread::spawn(move || {
            let (mut buffer, mut tail) = (vec![0; 65_536], Vec::new());
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                let now = Instant::now();
                tail.extend_from_slice(&buffer[..count]);
                for (n, key) in KEY_CHARS.iter().enumerate() {
                    if tail.windows(key.len()).any(|window| window == key.as_bytes()) {
                        let _ = tell.send((n, now));
                    }
                }
                // A character may come in two pieces.
                let keep = tail.len().saturating_sub(1);
                tail.drain(..keep);
            }
        });
        Self { child, keys: File::from(master), seen }
    }

    fn type_text(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Bytes that the program has in memory.
    fn memory(&self) -> u64 {
        // `setsid` has become the program.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ctrl-C, and in case that is not heard:
        let _ = self.keys.write_all(b"\x03");
        if !testkit::try_wait_until(Duration::from_secs(5), || self.child.try_wait().unwrap().is_some()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends, some at a time, and waits for the answers.
fn send_many(client: &mut LineClient, count: u64) {
    for start in (0..count).step_by(100) {
        let ids: Vec<u64> = (start..count.min(start + 100))
            .map(|n| {
                let text = format!("message {n}: what one writes in a chat, 聊天, of the usual length");
                client.post(json!({"type": "send", "user": "amy", "text": text}))
            })
            .collect();
        for id in ids {
            assert_eq!(client.reply(id)["type"], "ok");
        }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[test]
#[ignore = "a measurement of a minute, for a release build"]
fn a_keystroke_to_the_screen() {
    let chatd = Chatd::builder(testkit::bin("chatd")).args(["--rate-limits", "off"]).start().unwrap();
    drop(chatd.client_as("amy"));
    let mut writers: Vec<LineClient> = (0..WRITERS).map(|n| chatd.client_as(&format!("writer{n}"))).collect();
    thread::scope(|scope| {
        for writer in &mut writers {
            scope.spawn(|| send_many(writer, MESSAGES));
        }
    });
    let addr = chatd.chat_addr().to_string();
    let mut terminal = Terminal::open(&["--connect", &addr, "--no-remember", "--name", "amy"]);
    thread::sleep(Duration::from_secs(1));
    let empty = terminal.memory();
    for text in ["l", "\r", Chatd::PASSWORD, "\r"] {
        terminal.type_text(text);
        thread::sleep(Duration::from_millis(300));
    }
    let begin = Instant::now();
    for writer in &mut writers {
        // Acks come in steps: the last one says that all is there.
        while writer.next_push("delivered")["seq"] != MESSAGES {}
    }
    println!("{} messages arrived within {:.1} s", WRITERS * MESSAGES, begin.elapsed().as_secs_f64());
    println!("memory: {} KiB before, {} KiB with them", empty / 1_024, terminal.memory() / 1_024);
    terminal.type_text("/to writer0\r");
    let stop = AtomicBool::new(false);
    let mut taken = thread::scope(|scope| {
        let writer = &mut writers[0];
        let stop = &stop;
        scope.spawn(move || {
            let begin = Instant::now();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let due = u64::try_from(begin.elapsed().as_millis()).unwrap() * PER_SECOND / 1_000;
                if sent < due {
                    send_many(writer, (due - sent).min(10));
                    sent += (due - sent).min(10);
                }
                thread::sleep(Duration::from_millis(1));
            }
            println!("{sent} more messages, {:.0} per second", sent as f64 / begin.elapsed().as_secs_f64());
        });
        thread::sleep(Duration::from_secs(1));
        let mut taken = Vec::new();
        for n in 0..KEYS {
            let begin = Instant::now();
            terminal.type_text(KEY_CHARS[n % 2]);
            let mut news = std::iter::from_fn(|| terminal.seen.recv_timeout(Duration::from_secs(10)).ok());
            let Some((_, seen)) = news.find(|(key, _)| *key == n % 2) else { break };
            taken.push(seen.saturating_duration_since(begin));
            terminal.type_text("\x7f");
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        taken
    });
    assert_eq!(taken.len(), KEYS, "a key was not shown");
    taken.sort_unstable();
    println!(
        "a keystroke to the screen: p50 {:?}, p99 {:?}, at most {:?}",
        percentile(&taken, 50),
        percentile(&taken, 99),
        taken.last().unwrap()
    );
    println!("memory at the end: {} KiB", terminal.memory() / 1_024);
}
