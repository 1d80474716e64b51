//! One life of the ZooKeeper client: made, used, and thrown away at the first doubt.
//!
//! The client runs on a thread of its own. Each call is posted there and waited for with a deadline of its own; one that is missed, any state but *connected*, a
//! panic, and the end of its connection are all the same: the session is lost. Then the connection is cut and the thread left to itself; it ends when the client lets it.

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use zookeeper::{WatchedEvent, ZkError, ZkResult, ZkState, ZooKeeper};

use super::relay::Relay;

/// What happens in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is over.
    Lost,
    /// The list of a service's instances has changed.
    List(String),
    /// An instance of a service has changed.
    Data(String, String),
}

/// Why a call brought nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Failure {
    /// The session is over; whether the call was carried out is not known.
    Lost,
    /// The server said no.
    Refused(ZkError),
}

type Job = Box<dyn FnOnce(&ZooKeeper) + Send>;

pub(super) struct Session {
    relay: Relay,
    jobs: Option<Sender<Job>>,
    tell: Sender<Event>,
    pub(super) events: Receiver<Event>,
    call_timeout: Duration,
    pub(super) lost: bool,
}

impl Session {
    /// Connects to one server and makes a client for it. What is given back has answered a call.
    pub(super) fn open(
        server: SocketAddr,
        timeout: Duration,
        call_timeout: Duration,
    ) -> Result<Self, Failure> {
        let (tell, events) = unbounded();
        let relay = Relay::open(server, call_timeout, tell.clone()).map_err(|error| {
            log::debug!("cannot connect to ZooKeeper at {server}: {error}");
            Failure::Lost
        })?;
        let (jobs, todo) = unbounded();
        let (address, listener, theirs) = (relay.address(), relay.listener(), tell.clone());
        std::thread::Builder::new()
            .name("zk-client".to_owned())
            .spawn(move || own(address, timeout, &todo, &theirs, listener))
            .map_err(|_| Failure::Lost)?;
        let mut session = Self { relay, jobs: Some(jobs), tell, events, call_timeout, lost: false };
        session.call(|client| client.exists("/", false).map(|_| ()))?;
        Ok(session)
    }

    /// Where watches send what they see.
    pub(super) fn teller(&self) -> Sender<Event> {
        self.tell.clone()
    }

    /// Makes a call on the client's thread. After a loss there is no further one. The end of the connection is an answer as well: the client itself would wait for
    /// another connection, and a server that is just starting ends the first ones.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&ZooKeeper) -> ZkResult<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let ended = self.relay.ended().clone();
        self.call_until(&ended, work)
    }

    fn call_until<T: Send + 'static>(
        &mut self,
        ended: &Receiver<()>,
        work: impl FnOnce(&ZooKeeper) -> ZkResult<T> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.lost {
            return Err(Failure::Lost);
        }
        let (tell, told) = bounded(1);
        let job: Job = Box::new(move |client| {
            // Who asked may have stopped waiting.
            let _ = tell.send(work(client));
        });
        let posted = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        let answer = if posted {
            select! {
                recv(told) -> answer => answer.ok(),
                // What came with the last bytes may be there already.
                recv(ended) -> _ => told.try_recv().ok(),
                default(self.call_timeout) => None,
            }
        } else {
            None
        };
        match answer {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) if is_an_answer(error) => Err(Failure::Refused(error)),
            other => {
                log::warn!(
                    "the session with ZooKeeper is given up: {}",
                    match other {
                        Some(Err(error)) => format!("{error:?}"),
                        _ => "no answer".to_owned(),
                    }
                );
                self.abandon();
                Err(Failure::Lost)
            }
        }
    }

    /// Ends the session in good order, so that the server forgets its nodes at once. As far as the server answers.
    pub(super) fn close(mut self) {
        // The server ends the connection when it has answered, and that is no loss.
        if let Err(failure) = self.call_until(&never(), ZooKeeper::close) {
            log::debug!("the session with ZooKeeper was not closed: {failure:?}");
        }
    }

    fn abandon(&mut self) {
        self.lost = true;
        self.jobs = None;
        self.relay.cut();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Whether this is the server's word, and not the client's trouble.
fn is_an_answer(error: ZkError) -> bool {
    matches!(
        error,
        ZkError::NoNode
            | ZkError::NodeExists
            | ZkError::BadVersion
            | ZkError::NotEmpty
            | ZkError::NoAuth
            | ZkError::InvalidACL
            | ZkError::NoChildrenForEphemerals
            | ZkError::NotReadOnly
    )
}

/// The client's own thread. All that can panic or hang in the client does it here.
fn own(
    address: SocketAddr,
    timeout: Duration,
    jobs: &Receiver<Job>,
    events: &Sender<Event>,
    listener: Arc<TcpListener>,
) {
    let made = catch_unwind(AssertUnwindSafe(|| {
        ZooKeeper::connect(&address.to_string(), timeout, |_: WatchedEvent| {})
    }));
    if let Ok(Ok(client)) = made {
        let told = events.clone();
        let (tell_end, ended) = bounded(1);
        // Runs on the client's I/O thread, from where a call of the client would wait for itself: it only passes on what it hears.
        client.add_listener(move |state: ZkState| {
            if state != ZkState::Connected {
                let _ = told.send(Event::Lost);
            }
            if state == ZkState::Closed {
                let _ = tell_end.try_send(());
            }
        });
        for job in jobs {
            if catch_unwind(AssertUnwindSafe(|| job(&client))).is_err() {
                break;
            }
        }
        // Dropping the client waits for the end of its session, which may take as long as the session's timeout.
        if catch_unwind(AssertUnwindSafe(|| drop(client))).is_err() {
            log::debug!("the ZooKeeper client panicked at its end");
        }
        // That may come back early while the client's I/O thread goes on for the rest of its session's time, connecting as fast as it can to where nobody listens.
        let _ = ended.recv_timeout(timeout * 2);
    }
    let _ = events.send(Event::Lost);
    // Until here the client could connect again and again, and was to be kept waiting.
    drop(listener);
}
