//! A private Redis on a free port, which keeps nothing.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{TestkitError, free_port, need_program};

/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the answer to a command may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A running Redis on loopback. It writes nothing to disk, so one that was ended comes back empty. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Redis {
    // Before `dir`, so that the process is gone when its folder is removed.
    daemon: Daemon,
    port: u16,
    dir: TempDir,
}

impl Redis {
    /// Whether its program is there (see [`need_program`]); prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        need_program("redis-server")
    }

    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be run, ends at once, or does not answer within 30 s.
    pub fn start() -> Result<Redis, TestkitError> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-redis-")
            .tempdir()
            .map_err(|e| TestkitError::io("make a temporary folder", e))?;
        let redis = Redis { daemon: Daemon::new(dir.path()), port: free_port(), dir };
        redis.launch()?;
        Ok(redis)
    }

    /// Where it listens. The same over restarts.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its URL, by way of the address `addr`: its own, or that of a proxy before it.
    pub fn url_at(addr: SocketAddr) -> String {
        format!("redis://{addr}/")
    }

    /// Its URL.
    pub fn url(&self) -> String {
        Self::url_at(self.addr())
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.daemon.pid().expect("a running Redis")
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(&self) {
        self.daemon.end(Signal::KILL);
    }

    /// Lets it end in good order, and waits until it has.
    pub fn shut_down(&self) {
        self.daemon.end(Signal::TERM);
    }

    /// Starts it again on the same port, empty. One that still runs is ended first.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn restart(&self) -> Result<(), TestkitError> {
        self.shut_down();
        self.launch()
    }

    /// Stops the process in its tracks (SIGSTOP): connections stay and nobody answers. [`Redis::resume`] lets it go on.
    pub fn pause(&self) {
        self.daemon.signal(Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        self.daemon.signal(Signal::CONT);
    }

    /// Runs a command on a connection of its own, as in `command(&["CLIENT", "KILL", "TYPE", "pubsub"])`; the answer as words: one for a single
    /// value, one for each of a list's. A missing value is an empty word.
    ///
    /// # Errors
    /// When it cannot be reached, does not answer within 10 s, or answers with an error.
    pub fn command(&self, words: &[&str]) -> Result<Vec<String>, TestkitError> {
        let io = |e| TestkitError::io(format!("{} on Redis", words.join(" ")), e);
        let mut stream = TcpStream::connect_timeout(&self.addr(), ANSWER_MAX).map_err(io)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(io)?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).map_err(io)?;
        let mut answer = Vec::new();
        read_answer(&mut BufReader::new(stream), &mut answer).map_err(io)?;
        Ok(answer)
    }

    /// Empties it (`FLUSHALL`), as an operator's slip would.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub fn flush_all(&self) -> Result<(), TestkitError> {
        self.command(&["FLUSHALL"]).map(drop)
    }

    /// Cuts all its connections, those of publishers and of subscribers.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub fn kill_clients(&self) -> Result<(), TestkitError> {
        for kind in ["pubsub", "normal"] {
            self.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])?;
        }
        Ok(())
    }

    fn launch(&self) -> Result<(), TestkitError> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.args(["--save", "", "--appendonly", "no", "--maxclients", "10000", "--dir"]);
        command.arg(self.dir.path());
        self.daemon.launch(&mut command, START_MAX, || {
            self.command(&["PING"]).is_ok_and(|words| words.first().is_some_and(|word| word == "PONG"))
        })
    }
}

/// One answer in Redis' own format. A list inside a list is written out flat.
fn read_answer(input: &mut BufReader<TcpStream>, words: &mut Vec<String>) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let line = line.trim_end();
    let mut chars = line.chars();
    let (kind, rest) = (chars.next(), chars.as_str());
    match kind {
        Some('+' | ':') => words.push(rest.to_owned()),
        Some('-') => return Err(bad(rest)),
        Some('$') => {
            let Ok(length) = usize::try_from(rest.parse::<i64>().map_err(|_| bad(line))?) else {
                words.push(String::new());
                return Ok(());
            };
            let mut bytes = vec![0; length + 2];
            input.read_exact(&mut bytes)?;
            words.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        Some('*') => {
            for _ in 0..rest.parse::<i64>().map_err(|_| bad(line))? {
                read_answer(input, words)?;
            }
        }
        _ => return Err(bad(&format!("not an answer: {line:?}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn it_answers_and_comes_back_empty_where_it_was() {
        if !Redis::available() {
            return;
        }
        let redis = Redis::start().unwrap();
        let (pid, addr) = (redis.pid(), redis.addr());
        assert_eq!(redis.command(&["SET", "key", "a value"]).unwrap(), ["OK"]);
        assert_eq!(redis.command(&["GET", "key"]).unwrap(), ["a value"]);
        assert_eq!(redis.command(&["KEYS", "*"]).unwrap(), ["key"]);
        assert!(redis.command(&["NO SUCH THING"]).unwrap_err().to_string().contains("unknown command"));
        redis.flush_all().unwrap();
        assert_eq!(redis.command(&["GET", "key"]).unwrap(), [""]);
        redis.command(&["SET", "key", "2"]).unwrap();
        redis.kill9();
        assert!(!process::is_alive(pid));
        redis.restart().unwrap();
        assert_eq!((redis.addr(), redis.command(&["EXISTS", "key"]).unwrap()), (addr, vec!["0".to_owned()]));
        let (pid, dir) = (redis.pid(), redis.dir.path().to_owned());
        drop(redis);
        assert!(!process::is_alive(pid) && !dir.exists());
    }

    #[test]
    fn its_clients_can_be_cut_and_a_pause_is_silence() {
        if !Redis::available() {
            return;
        }
        let redis = Redis::start().unwrap();
        let mut stream = TcpStream::connect(redis.addr()).unwrap();
        stream.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        redis.pause();
        stream.write_all(b"PING\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(stream.read_exact(&mut answer).is_err());
        redis.resume();
        stream.set_read_timeout(Some(START_MAX)).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
        redis.kill_clients().unwrap();
        assert!(!matches!(stream.read(&mut answer), Ok(1..)), "the connection was cut");
    }
}
