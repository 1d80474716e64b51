//! What `echoload` is told on its command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Loads an echo server, checks that every byte comes back, and says how quickly.
#[derive(Clone, Debug, Parser)]
#[command(name = "echoload", version, after_help = AFTER)]
pub struct EchoOptions {
    /// The server
    #[arg(long, value_name = "ADDR")]
    pub addr: SocketAddr,
    /// What is done with the connections
    #[arg(long, value_enum, default_value_t = EchoShape::Echo)]
    pub shape: EchoShape,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    pub connections: usize,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=64 << 20))]
    pub size: u64,
    /// Messages of each connection that are on their way
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub window: u64,
    /// Messages of each connection in all, instead of a time (echo); lines (hub); connections one after the other (cycles)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// Seconds that are measured (echo, sink), or watched (hold)
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds of load before that, which are not measured (echo, sink)
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = seconds)]
    pub warmup: f64,
    /// Seconds without a byte that comes back after which a run that waits for some has failed
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = seconds)]
    pub patience: f64,
    /// Wait for the server to close too before the next connection is opened (cycles)
    #[arg(long)]
    pub lockstep: bool,
    /// Threads of the client, which share the connections (echo, sink)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub threads: usize,
    /// Look at every byte; otherwise only at those that come before the measured time, and count the others (echo)
    #[arg(long)]
    pub check: bool,
    /// The server's process on this machine, to report its CPU and memory
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

const AFTER: &str = "\
Examples:
  echoload --addr 127.0.0.1:7000 --connections 100 --size 64 --seconds 5 --pid PID
  echoload --addr 127.0.0.1:7000 --connections 4 --window 16 --messages 100000 --check
  echoload --addr 127.0.0.1:7000 --shape hold --connections 10000 --size 16384 --pid PID

Exit codes: 0 done and everything came back, 1 it did not or the run failed, 2 wrong usage.";

/// What is done with the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EchoShape {
    /// Messages go out and come back
    Echo,
    /// Bytes go out and nothing comes back
    Sink,
    /// Connections are held, idle; then each sends one message; what the server's memory has grown by, and how often it woke. Needs --pid
    Hold,
    /// Connections are opened and closed, one after the other
    Cycles,
    /// For a line hub: one connection sends a line when all others have the last one
    Hub,
}

impl EchoOptions {
    pub(crate) fn warmup(&self) -> Duration {
        Duration::try_from_secs_f64(self.warmup).unwrap_or_default()
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::try_from_secs_f64(self.patience).unwrap_or_default()
    }

    pub(crate) fn seconds(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }

    /// What is wrong with these options that a single one does not show.
    ///
    /// # Errors
    /// The words for the person who gave them.
    pub fn check(&self) -> Result<(), String> {
        if self.threads > self.connections {
            return Err("--threads: every thread needs a connection".to_owned());
        }
        match self.shape {
            EchoShape::Hold if self.pid.is_none() => Err("--shape hold needs --pid".to_owned()),
            EchoShape::Hub if self.connections < 2 => Err("--shape hub needs two connections".to_owned()),
            EchoShape::Hub if self.size < 2 => {
                Err("--shape hub: a line has a byte and its end: --size 2".to_owned())
            }
            EchoShape::Sink if self.messages.is_some() => {
                Err("--messages does not go with --shape sink".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number, at least 1".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("must be from 0 to 3600".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn options(flags: &[&str]) -> EchoOptions {
        EchoOptions::parse_from(["echoload", "--addr", "127.0.0.1:1"].iter().chain(flags))
    }

    #[test]
    fn the_command_line_is_well_formed_and_its_help_teaches() {
        let mut command = EchoOptions::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in ["Examples:", "Exit codes:", "--window"] {
            assert!(help.contains(word), "{word} is not in the help:\n{help}");
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        assert_eq!(options(&[]).check(), Ok(()));
        for (flags, word) in [
            (&["--threads", "101"][..], "--threads"),
            (&["--shape", "hold"], "--pid"),
            (&["--shape", "hub", "--connections", "1"], "two connections"),
            (&["--shape", "hub", "--size", "1"], "--size 2"),
            (&["--shape", "sink", "--messages", "1"], "--messages"),
        ] {
            assert!(options(flags).check().unwrap_err().contains(word), "{flags:?}");
        }
    }
}
