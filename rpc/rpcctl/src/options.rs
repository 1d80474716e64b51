//! The command line.

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::failure::{Failure, usage};

const EXAMPLES: &str = "\
Examples:
  rpcctl --zookeeper zk1:2181 services                     which services there are
  rpcctl --zookeeper zk1:2181 instances demo.Greeter       who provides one of them, and where
  rpcctl ping 10.0.0.9:7000                                whether a server answers, and how quickly
  rpcctl describe 10.0.0.9:7000                            what can be called there, with the fields of the messages
  rpcctl --endpoints 10.0.0.9:7000 call demo.Greeter/Greet '{\"name\":\"Amy\"}'
  echo '{\"name\":\"Amy\"}' | rpcctl --zookeeper zk1:2181 call demo.Greeter/Greet -

RPC_ZOOKEEPER and RPC_ENDPOINTS in the environment stand for the two options.
Messages are the JSON of protobuf: bytes in base64, 64-bit numbers as strings, fields at their defaults left out.
Exit codes: 0 done, 1 it failed (nobody answered, or the answer was an error), 2 the command or the request is wrong.";

/// Looks at services and calls them by hand
///
/// Servers are found in ZooKeeper (--zookeeper) or named one by one (--endpoints). What can be called, and what its messages look
/// like, the servers tell themselves: no .proto file is needed.
#[derive(Debug, Parser)]
#[command(name = "rpcctl", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Find servers in these ZooKeeper servers
    #[arg(long, env = "RPC_ZOOKEEPER", value_name = "HOST:PORT,…", global = true)]
    pub(crate) zookeeper: Option<String>,
    /// Take these servers, whatever ZooKeeper says
    #[arg(long, env = "RPC_ENDPOINTS", value_name = "HOST:PORT,…", value_delimiter = ',', global = true)]
    pub(crate) endpoints: Vec<String>,
    /// Seconds that each step may take: finding, connecting, the answer
    #[arg(long, default_value_t = 5.0, value_name = "S", global = true)]
    timeout: f64,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the services, each with the number of its instances
    Services,
    /// List the instances of a service: address, id, state, weight, zone, version
    Instances {
        /// Its full name: package.Service
        service: String,
    },
    /// Say hello to a server and ping it
    Ping {
        /// HOST:PORT, or a service, all of whose instances are pinged
        target: String,
        /// How often
        #[arg(long, default_value_t = 3, value_name = "N")]
        count: u32,
    },
    /// Show what a server offers: services, methods, messages
    Describe {
        /// HOST:PORT, or a service, one of whose instances is asked
        target: String,
    },
    /// Call a method with JSON and print the answer as JSON
    Call {
        /// package.Service/Method
        method: String,
        /// The request; `-` reads it from standard input
        #[arg(default_value = "{}")]
        request: String,
        /// Say this beside the request; may be given several times
        #[arg(long, value_name = "KEY=VALUE")]
        metadata: Vec<String>,
    },
}

impl Options {
    pub(crate) fn timeout(&self) -> Result<Duration, Failure> {
        if self.timeout > 0.0 && self.timeout < 1e6 {
            Ok(Duration::from_secs_f64(self.timeout))
        } else {
            usage("--timeout has to be more than nothing and less than a million seconds")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed_and_its_help_teaches() {
        let mut command = Options::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in ["services", "instances", "ping", "describe", "call", "Examples", "Exit codes", "base64"]
        {
            assert!(help.contains(word), "{word} is not in the help:\n{help}");
        }
    }

    #[test]
    fn every_example_is_a_command_that_is_understood() {
        let commands = EXAMPLES.lines().filter_map(|line| line.split_once("rpcctl ")).map(|(_, rest)| rest);
        let mut seen = 0;
        for command in commands {
            // What stands behind two blanks explains.
            let words = command.split("  ").next().unwrap().split(' ').map(|word| word.trim_matches('\''));
            Options::try_parse_from(std::iter::once("rpcctl").chain(words)).unwrap();
            seen += 1;
        }
        assert_eq!(seen, 6);
    }
}
