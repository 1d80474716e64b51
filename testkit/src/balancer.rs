//! The configuration of nginx in front of several `chatd`: `nginx/chat.conf.template`, filled in.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// The template, as the repository has it.
const TEMPLATE: &str = include_str!("../../nginx/chat.conf.template");

/// By what the server of a new connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest connections: after a node came back empty, or where connections last long.
    LeastConn,
    /// By the client's address: who comes back comes to the same node while the list is the same.
    Hash,
}

/// What is filled in. `Default` has what suits one machine; the addresses are to be set.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Where clients connect without TLS.
    pub plain: Option<SocketAddr>,
    /// Where clients connect with TLS.
    pub tls: Option<SocketAddr>,
    /// The chain of certificates and the private key, as nginx finds them.
    pub certificate: (String, String),
    /// The chat ports of the servers.
    pub upstreams: Vec<SocketAddr>,
    /// By what one of them is chosen.
    pub choice: Choice,
    /// How long a connection may be silent in both directions. More than the 75 s after which `chatd` ends it.
    pub silence_max: Duration,
    /// Connections of one address at most.
    pub connections_per_address: u32,
    /// Connections of one worker at most; each takes two of nginx's own.
    pub connections: u32,
    /// Bytes a second of one connection towards the server.
    pub upload_rate: u32,
    /// Workers; 0 for one on each core.
    pub workers: u32,
}

impl Default for Balancer {
    fn default() -> Self {
        Balancer {
            plain: None,
            tls: None,
            certificate: ("chat.crt".to_owned(), "chat.key".to_owned()),
            upstreams: Vec::new(),
            choice: Choice::default(),
            // More than twice chatd's 75 s.
            silence_max: Duration::from_secs(180),
            connections_per_address: 500,
            connections: 8_000,
            // Four lines of full length.
            upload_rate: 256 * 1024,
            workers: 0,
        }
    }
}

impl Balancer {
    /// The whole configuration but the list of servers, which is [`Balancer::upstreams_conf`].
    pub fn nginx_conf(&self) -> String {
        let workers = if self.workers == 0 { "auto".to_owned() } else { self.workers.to_string() };
        let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
        // Started by root it would give up its rights to a user who cannot read a test's folder.
        let user = if crate::is_root() { "user root;" } else { "" };
        let choice = match self.choice {
            Choice::RoundRobin => "# round robin",
            Choice::LeastConn => "least_conn;",
            Choice::Hash => "hash $remote_addr consistent;",
        };
        let values = [
            ("@LOAD_MODULE@", module.to_owned()),
            ("@USER@", user.to_owned()),
            ("@WORKERS@", workers),
            ("@DESCRIPTORS@", (self.connections * 2 + 256).to_string()),
            ("@CONNECTIONS@", (self.connections * 2).to_string()),
            ("@CONNECTIONS_PER_ADDRESS@", self.connections_per_address.to_string()),
            ("@CHOICE@", choice.to_owned()),
            ("@SILENCE@", format!("{}ms", self.silence_max.as_millis())),
            ("@UPLOAD_RATE@", self.upload_rate.to_string()),
            ("@SERVERS@", self.servers()),
        ];
        values.iter().fold(TEMPLATE.to_owned(), |text, (key, value)| text.replace(key, value))
    }

    /// The list of servers, for `upstreams.conf`.
    ///
    /// A server counts as gone for 2 s when 3 connects within them failed: a single one that came too early does not empty the list.
    pub fn upstreams_conf(&self) -> String {
        let mut text = String::new();
        for server in &self.upstreams {
            let _ = writeln!(text, "server {server} max_fails=3 fail_timeout=2s;");
        }
        if text.is_empty() {
            // nginx refuses an empty list; nobody answers at this address.
            text.push_str("server 127.0.0.1:1 down;\n");
        }
        text
    }

    fn servers(&self) -> String {
        let mut text = String::new();
        if let Some(listen) = self.plain {
            let _ = writeln!(
                text,
                "    server {{\n        listen {listen} so_keepalive=on backlog=4096;\n        proxy_pass chatd;\n    }}"
            );
        }
        if let Some(listen) = self.tls {
            let (chain, key) = &self.certificate;
            let _ = write!(
                text,
                "    server {{\n        listen {listen} ssl so_keepalive=on backlog=4096;\n        ssl_certificate {chain};\n        \
                 ssl_certificate_key {key};\n        ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_session_cache shared:chat:10m;\n        \
                 ssl_handshake_timeout 10s;\n        proxy_pass chatd;\n    }}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_between_at_signs_and_the_silence_is_longer_than_chatds() {
        let balancer = Balancer {
            plain: Some("127.0.0.1:6000".parse().unwrap()),
            tls: Some("127.0.0.1:6443".parse().unwrap()),
            upstreams: vec!["10.0.0.1:6000".parse().unwrap()],
            ..Balancer::default()
        };
        let text = balancer.nginx_conf();
        let active = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        assert!(!active.clone().any(|line| line.contains('@')), "{text}");
        assert!(text.contains("listen 127.0.0.1:6443 ssl") && text.contains("proxy_timeout 180000ms;"));
        assert!(balancer.silence_max > Duration::from_secs(75));
        assert_eq!(balancer.upstreams_conf(), "server 10.0.0.1:6000 max_fails=3 fail_timeout=2s;\n");
        for (choice, words) in [(Choice::LeastConn, "least_conn;"), (Choice::Hash, "hash $remote_addr")] {
            assert!(Balancer { choice, ..balancer.clone() }.nginx_conf().contains(words));
        }
    }
}
