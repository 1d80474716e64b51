//! The client's connection to a server, led through this process: so that it can be cut. The client itself has no way to end a call that hangs, keeps its socket
//! to itself, and connects again as fast as it can.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::session::Event;

/// How long a server may take nothing of what is sent to it.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// One connection to one server, by way of a port of our own. Only the first connection to that port is served. Later ones, which the client makes when it has
/// lost the first, are accepted by the system and never answered: so it waits instead of turning.
pub(super) struct Relay {
    address: SocketAddr,
    server: TcpStream,
    client: Arc<Mutex<Option<TcpStream>>>,
    /// For as long as the client lives.
    listener: Arc<TcpListener>,
    /// Hears that nothing passes any more, by the end of its other side.
    ended: Receiver<()>,
}

impl Relay {
    /// Connects to `server`, and then listens for the client. The end of the connection is told to `events`.
    pub(super) fn open(server: SocketAddr, timeout: Duration, events: Sender<Event>) -> io::Result<Self> {
        let server = TcpStream::connect_timeout(&server, timeout)?;
        server.set_nodelay(true)?;
        server.set_write_timeout(Some(WRITE_MAX))?;
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let address = listener.local_addr()?;
        let client = Arc::new(Mutex::new(None));
        let (passes, ended) = bounded::<()>(0);
        let relay =
            Self { address, server, client: Arc::clone(&client), listener: Arc::clone(&listener), ended };
        let to_server = relay.server.try_clone()?;
        std::thread::Builder::new().name("zk-relay".to_owned()).spawn(move || {
            if let Err(error) = run(&listener, to_server, &client) {
                log::debug!("relay to ZooKeeper: {error}");
            }
            // Nobody may be left to hear it.
            let _ = events.send(Event::Lost);
            drop(passes);
        })?;
        Ok(relay)
    }

    /// Where the client is to connect to.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Is told nothing, and disconnected when nothing passes any more.
    pub(super) const fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    /// What has to live as long as the client does.
    pub(super) fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    /// Ends the connection, now. What is ended already is nothing.
    pub(super) fn cut(&self) {
        let _ = self.server.shutdown(Shutdown::Both);
        let client = self.client.lock().take();
        match client {
            Some(client) => {
                let _ = client.shutdown(Shutdown::Both);
            }
            // The thread may still wait for the client: this is one, and it goes away at once.
            None => {
                let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

fn run(listener: &TcpListener, server: TcpStream, known: &Mutex<Option<TcpStream>>) -> io::Result<()> {
    let (client, _) = listener.accept()?;
    client.set_nodelay(true)?;
    *known.lock() = Some(client.try_clone()?);
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let back = std::thread::Builder::new()
        .name("zk-relay-out".to_owned())
        .spawn(move || pump(from_client, to_server))?;
    pump(server, client);
    if back.join().is_err() {
        log::error!("the relay to ZooKeeper panicked");
    }
    Ok(())
}

/// Passes bytes on until either side ends, then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
