//! What `chatload` is told on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use schema::limits::TEXT_BYTES_MAX;

use crate::message::TEXT_BYTES_MIN;

/// Loads a chat server and says how it did: rates, latencies, the server's CPU and memory, and whether anything was lost, doubled or out of order.
///
/// It registers its own users, under names that no other run has, so it needs nothing but the server's address. Registering costs the server a
/// password hash for each user: start a server that is only there to be measured with `[login] hash_memory_kib = 64, hash_passes = 1` in its
/// configuration, or 10,000 users take minutes to come in.
#[derive(Clone, Debug, Parser)]
#[command(name = "chatload", version, after_help = AFTER)]
pub struct Options {
    /// The server's chat port
    #[arg(long, value_name = "ADDR")]
    pub addr: SocketAddr,
    /// What the users do: pairs, group:N (groups of N members), idle, offline (store and fetch, or store and fetch alone), storm (logins by token),
    /// mixed (one in twenty in pairs, one in ten in groups of 20, the others idle)
    #[arg(long, value_name = "SHAPE")]
    pub shape: ShapeName,
    /// Users, each with one connection [default: 200 for pairs and offline, 10000 for idle, one group of N, 2000 for storm and mixed]
    #[arg(long, visible_alias = "conns", value_name = "N")]
    pub users: Option<usize>,
    /// Messages of each user that wait for their ok (pairs)
    #[arg(long, value_name = "W", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub window: u32,
    /// Send so many messages a second, whatever the server answers; what is answered `overloaded` is counted and not sent again, and --window only
    /// bounds what waits for its ok (pairs; mixed has 1000)
    #[arg(long, value_name = "PER SECOND", value_parser = per_second)]
    pub rate: Option<f64>,
    /// After the measured time go on at this rate for 3 s, and see how soon all is well again (pairs with --rate)
    #[arg(long, value_name = "PER SECOND", requires = "rate", value_parser = per_second)]
    pub then_rate: Option<f64>,
    /// Messages to send, all together (offline, store)
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    pub messages: u64,
    /// What `store` leaves to `fetch`: the users, and which of their messages were answered
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Kill (SIGKILL) this process at the moment in which the last ok has come (store); may be repeated
    #[arg(long, value_name = "PID")]
    pub then_kill: Vec<u32>,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds of load before that, which are not measured (pairs)
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub warmup: f64,
    /// Seconds to wait at the end for what is still under way (pairs)
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = seconds)]
    pub drain: f64,
    /// Bytes of a message's text (pairs)
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub text_bytes: usize,
    /// Seconds between an idle user's signs of life
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub heartbeat: u32,
    /// The server's process on this machine, to report its CPU and memory
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// A process that works for the server, such as its database, to report its CPU; may be repeated
    #[arg(long, value_name = "PID")]
    pub also: Vec<u32>,
    /// Write the result to this file as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Part of the users' names and the client ids; must be new to the server [default: from the clock]
    #[arg(long, value_name = "X")]
    pub run_id: Option<String>,
}

const AFTER: &str = "\
Examples:
  chatload --addr 127.0.0.1:6000 --shape pairs --users 200 --window 16 --seconds 10
  chatload --addr 127.0.0.1:6000 --shape pairs --users 2 --window 1 --pid $(pidof chatd)
  chatload --addr 127.0.0.1:6000 --shape idle --users 10000 --pid $(pidof chatd)
  chatload --addr 127.0.0.1:6000 --shape group:1000 --window 8 --pid $(pidof chatd)
  chatload --addr 127.0.0.1:6000 --shape pairs --window 256 --rate 100000 --then-rate 10000
  chatload --addr 127.0.0.1:6000 --shape store --state run.json && chatload --addr 127.0.0.1:6000 --shape fetch --state run.json

It uses one core. To measure a server rather than the two together, give each a core of its own with taskset; when the result
says that chatload itself used all of its core, the figure is chatload's limit, not the server's.

Exit codes: 0 done and everything arrived as promised, 1 it did not or the run failed, 2 wrong usage.";

/// What the users of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeName {
    /// Users in pairs write to each other as fast as their windows allow.
    Pairs,
    /// Users are logged in and do nothing.
    Idle,
    /// Half of the users write to the other half, who are away; then those come and fetch it.
    Offline,
    /// The first half of that.
    Store,
    /// The second half of that.
    Fetch,
    /// Users log in by token and leave, one after the other.
    Storm,
    /// Many idle, a few in pairs, some in groups.
    Mixed,
    /// Users in groups of so many, of whom one writes as fast as its window allows.
    Group(usize),
}

impl FromStr for ShapeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("group:").map(str::parse)) {
            ("pairs", _) => Ok(Self::Pairs),
            ("idle", _) => Ok(Self::Idle),
            ("offline", _) => Ok(Self::Offline),
            ("store", _) => Ok(Self::Store),
            ("fetch", _) => Ok(Self::Fetch),
            ("storm", _) => Ok(Self::Storm),
            ("mixed", _) => Ok(Self::Mixed),
            (_, Some(Ok(size))) if size >= 2 => Ok(Self::Group(size)),
            _ => {
                Err("must be pairs, idle, offline, store, fetch, storm, mixed, or group:N with N at least 2"
                    .to_owned())
            }
        }
    }
}

impl Options {
    /// How many users the run has.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.unwrap_or(match self.shape {
            ShapeName::Pairs | ShapeName::Offline | ShapeName::Store | ShapeName::Fetch => 200,
            ShapeName::Storm | ShapeName::Mixed => 2_000,
            ShapeName::Idle => 10_000,
            ShapeName::Group(size) => size,
        })
    }

    /// What is wrong with these options that a single one does not show.
    ///
    /// # Errors
    /// The words for the person who gave them.
    pub fn check(&self) -> Result<(), String> {
        let users = self.users();
        let two_sided = [ShapeName::Pairs, ShapeName::Offline, ShapeName::Store, ShapeName::Fetch];
        if users == 0 || (two_sided.contains(&self.shape) && !users.is_multiple_of(2)) {
            return Err(format!(
                "--users {users}: this shape needs an even number of users, and at least one pair"
            ));
        }
        if matches!(self.shape, ShapeName::Store | ShapeName::Fetch) && self.state.is_none() {
            return Err("--shape store and fetch need --state FILE".to_owned());
        }
        if let ShapeName::Group(size) = self.shape
            && !users.is_multiple_of(size)
        {
            return Err(format!("--users {users}: must be a multiple of the {size} members of a group"));
        }
        if !(TEXT_BYTES_MIN..=TEXT_BYTES_MAX).contains(&self.text_bytes) {
            return Err(format!("--text-bytes must be from {TEXT_BYTES_MIN} to {TEXT_BYTES_MAX}"));
        }
        let is_plain =
            |id: &str| (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if self.run_id.as_deref().is_some_and(|id| !is_plain(id)) {
            return Err("--run-id must be 1 to 16 ASCII letters and digits".to_owned());
        }
        Ok(())
    }
}

fn per_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1.0..=1e7).contains(&rate) { Ok(rate) } else { Err("must be from 1 to 10000000".to_owned()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("must be from 0 to 86400".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn options(flags: &[&str]) -> Options {
        let shape = if flags.contains(&"--shape") { &["--users", "20"][..] } else { &["--shape", "pairs"] };
        let all = ["chatload", "--addr", "127.0.0.1:1"].iter().chain(shape).chain(flags);
        Options::parse_from(all)
    }

    #[test]
    fn the_command_line_is_well_formed_and_its_help_teaches() {
        let mut command = Options::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in ["Examples:", "Exit codes:", "hash_memory_kib", "taskset"] {
            assert!(help.contains(word), "{word} is not in the help:\n{help}");
        }
    }

    #[test]
    fn conns_is_another_word_for_users() {
        assert_eq!(options(&["--conns", "20"]).users(), 20);
        assert_eq!(options(&[]).users(), 200);
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        assert_eq!(options(&[]).check(), Ok(()));
        for (flags, word) in [
            (["--users", "3"], "even"),
            (["--users", "0"], "pair"),
            (["--text-bytes", "3"], "--text-bytes"),
            (["--run-id", "a b"], "--run-id"),
            (["--shape", "group:7"], "multiple"),
            (["--shape", "fetch"], "--state"),
        ] {
            assert!(options(&flags).check().unwrap_err().contains(word), "{flags:?}");
        }
    }
}
