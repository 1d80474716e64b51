//! `cargo xtask`: the developer's one entry point.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to the person who runs it"
)]

mod bench;
mod ci;
mod faults;
mod nginx;
mod play;
mod server;
mod setup;
mod shell;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shell::Failure;

/// The developer's one entry point: everything that is done to this workspace more than once.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Where to begin:
  cargo xtask setup             what the tests need besides Rust (once per machine)
  cargo xtask play              a server and two clients side by side, to chat with yourself
  cargo xtask up                a whole cluster on free ports; cargo xtask down ends it
  cargo xtask test -p store     one crate's tests while working on it
  cargo xtask ci                all that has to be green before a commit that matters

Exit codes: 0 done, 1 a step failed (its name is the last line), 2 wrong usage or something is missing on this machine.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check for the programs that tests need, and install the missing ones
    ///
    /// The tests run chatcli in tmux and look at chatd's system calls with strace. What is missing is installed with apt-get,
    /// which needs root; without root this says what to install and ends with exit code 2. Running it again does nothing.
    Setup,
    /// Run what CI runs: setup, format, lints, tests, model checks, documentation
    ///
    /// Every step is printed with the time it took. The first one that fails ends the run with exit code 1, and its name is the
    /// last line. With CI=true in the environment a test whose server or program is missing fails; without, it prints `skipped`.
    Ci,
    /// Run `cargo test` for the workspace, or with the arguments given; `test faults` breaks things in a cluster
    ///
    /// `test faults` starts a private cluster (MariaDB, Redis, ZooKeeper, 2 logd, 3 chatd, nginx), lets 200 users write to each other, breaks one
    /// thing after another, and holds what everybody saw against what the protocol promises. Each run is named by its seed.
    #[command(after_help = "Examples:
  cargo xtask test                                  everything
  cargo xtask test -p reactor                       one crate
  cargo xtask test -p chatd --test conformance      one integration test
  cargo xtask test -p store -- cursors --nocapture  the tests with `cursors` in their names, with their output
  cargo xtask test faults                           everything is broken once under each of five seeds; about 50 minutes
  cargo xtask test faults --seeds 1 --only node-killed --only redis-stopped
  cargo xtask test faults --soak 20                 faults left to chance for 20 minutes; memory and descriptors stay
  cargo xtask test faults --list                    what can be broken")]
    Test {
        /// Handed to cargo test as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Chat with yourself: a server and two clients side by side in tmux
    ///
    /// Builds chatd and chatcli in release mode, starts a private chatd on a free port with an empty data folder, and opens two
    /// chatcli next to each other. Leave with Ctrl-b d, or end both clients: the server is then stopped and its data removed.
    /// Without tmux, or without a terminal, it says how to do the same by hand.
    Play {
        /// Keep the messages in this folder in place of a temporary one
        #[arg(long, value_name = "DIR", conflicts_with = "cluster")]
        data_dir: Option<std::path::PathBuf>,
        /// Put the two on different nodes of a cluster: MariaDB, Redis, ZooKeeper, 2 logd, 3 chatd and nginx
        #[arg(long)]
        cluster: bool,
    },
    /// Start a whole cluster on free ports: MariaDB, Redis, ZooKeeper, 2 logd, 3 chatd, nginx
    ///
    /// What is started stays until `cargo xtask down`. Where everything is stands in target/up/ports.json. The data is temporary.
    Up(up::Up),
    /// End the cluster that `up` has started
    Down,
    /// Print nginx's configuration for several chatd
    #[command(after_help = nginx::HELP)]
    Nginx(nginx::Nginx),
    /// Measure: every benchmark, unattended
    #[command(after_help = bench::HELP)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Setup => setup::run(),
        Command::Ci => ci::run(),
        Command::Test { args } => test::run(&args),
        Command::Play { cluster: true, .. } => play::run_cluster(),
        Command::Play { data_dir, .. } => play::run(data_dir.as_deref()),
        Command::Up(up) => up::run(&up),
        Command::Down => up::down(),
        Command::Nginx(nginx) => nginx::run(&nginx),
        Command::Bench(bench) => bench::run(&bench),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            match failure {
                Failure::Step(_) => ExitCode::from(1),
                Failure::Missing(_) => ExitCode::from(2),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed_and_its_help_teaches() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in ["setup", "ci", "test", "play", "bench", "up", "down", "nginx", "Exit codes"] {
            assert!(help.contains(word), "{word} is not in the help:\n{help}");
        }
    }

    #[test]
    fn test_arguments_go_to_cargo_untouched() {
        let cli =
            Cli::try_parse_from(["xtask", "test", "-p", "store", "--", "cursors", "--nocapture"]).unwrap();
        let Command::Test { args } = cli.command else { panic!("not test") };
        assert_eq!(args, ["-p", "store", "--", "cursors", "--nocapture"]);
    }
}
