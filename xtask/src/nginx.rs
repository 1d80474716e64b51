//! `cargo xtask nginx`: the balancer's configuration, filled in.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use testkit::{Balancer, Choice};

use crate::shell::Failure;

pub(crate) const HELP: &str = "Examples:
  cargo xtask nginx --listen 0.0.0.0:6000 --upstream 10.0.0.1:6000 --upstream 10.0.0.2:6000 > nginx.conf
  cargo xtask nginx --tls 0.0.0.0:6443 --certificate /etc/ssl/chat.crt --key /etc/ssl/chat.key > nginx.conf
  cargo xtask nginx --upstreams-only --upstream 10.0.0.1:6000 > upstreams.conf; nginx -s reload
  chatd upstreams --zookeeper 10.0.0.9:2181 > upstreams.conf; nginx -s reload

The list of servers is a file of its own, upstreams.conf beside nginx.conf. docs/operations.md, \"nginx\", tells what to choose.";

/// What `cargo xtask nginx` takes.
#[derive(Debug, Args)]
pub(crate) struct Nginx {
    /// Where clients connect without TLS
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where clients connect with TLS
    #[arg(long, value_name = "ADDR")]
    tls: Option<SocketAddr>,
    /// The chain of certificates
    #[arg(long, value_name = "FILE", default_value = "chat.crt")]
    certificate: String,
    /// The private key
    #[arg(long, value_name = "FILE", default_value = "chat.key")]
    key: String,
    /// A chat server; can be given several times
    #[arg(long, value_name = "ADDR")]
    upstream: Vec<SocketAddr>,
    /// By what the server of a new connection is chosen
    #[arg(long, value_enum, default_value_t = By::RoundRobin)]
    by: By,
    /// Connections of one address at most
    #[arg(long, value_name = "N", default_value_t = 500)]
    per_address: u32,
    /// Connections of one worker at most
    #[arg(long, value_name = "N", default_value_t = 8_000)]
    connections: u32,
    /// Prints the list of servers alone
    #[arg(long)]
    upstreams_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// One after the other
    RoundRobin,
    /// The one with the fewest connections
    LeastConn,
    /// By the client's address
    Hash,
}

/// Prints what was asked for.
pub(crate) fn run(nginx: &Nginx) -> Result<(), Failure> {
    print!("{}", text(nginx)?);
    Ok(())
}

fn text(nginx: &Nginx) -> Result<String, Failure> {
    let balancer = Balancer {
        plain: nginx.listen,
        tls: nginx.tls,
        certificate: (nginx.certificate.clone(), nginx.key.clone()),
        upstreams: nginx.upstream.clone(),
        choice: match nginx.by {
            By::RoundRobin => Choice::RoundRobin,
            By::LeastConn => Choice::LeastConn,
            By::Hash => Choice::Hash,
        },
        connections_per_address: nginx.per_address,
        connections: nginx.connections,
        ..Balancer::default()
    };
    if nginx.upstreams_only {
        return Ok(balancer.upstreams_conf());
    }
    if balancer.plain.is_none() && balancer.tls.is_none() {
        return Err(Failure::Missing("where are clients to connect? Give --listen or --tls".to_owned()));
    }
    Ok(balancer.nginx_conf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        nginx: Nginx,
    }

    fn rendered(args: &[&str]) -> Result<String, Failure> {
        text(&Cli::parse_from([&["nginx"], args].concat()).nginx)
    }

    #[test]
    fn what_is_asked_for_is_in_the_configuration() {
        let text =
            rendered(&["--listen", "0.0.0.0:6000", "--by", "least-conn", "--per-address", "77"]).unwrap();
        for words in ["listen 0.0.0.0:6000 ", "least_conn;", "limit_conn addresses 77;"] {
            assert!(text.contains(words), "no {words:?} in:\n{text}");
        }
        let list = rendered(&["--upstreams-only", "--upstream", "10.0.0.1:6000"]).unwrap();
        assert!(list.starts_with("server 10.0.0.1:6000 "), "{list}");
        assert!(rendered(&[]).unwrap_err().to_string().contains("--listen or --tls"));
    }
}
