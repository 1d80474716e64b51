//! Our own server and load, on one loop each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::{Counted, Delay, Echo, EchoClient, EchoServer, Failure as Wanted, Payload};
use rpc::{
    CallContext, Channel, ChannelConfig, Code, Reply, RunningServer, Server, ServerConfig, Status, Workers,
};

use crate::faults::wait_until;
use crate::load::Meter;
use crate::subject::{Failure, Job, Outcome};

/// Calls of `Wait` that sleep at a time.
const SLEEPERS: usize = 64;

/// Echoes on the loop, and sleeps on workers.
struct Service {
    workers: Arc<Workers>,
}

impl Echo for Service {
    fn say(&self, _: CallContext, request: Payload, reply: Reply<Payload>) {
        reply.send(request);
    }

    fn count(&self, _: CallContext, _: Payload, reply: Reply<Counted>) {
        reply.send(Counted { calls: 1 });
    }

    fn wait(&self, _: CallContext, request: Delay, reply: Reply<Payload>) {
        // Refused, the job and the reply in it are dropped, which is an answer too.
        self.workers.try_run(move || {
            std::thread::sleep(Duration::from_millis(request.millis));
            reply.send(Payload { data: request.data });
        });
    }

    fn forget(&self, _: CallContext, _: Payload, _: Reply<Payload>) {}

    fn fail(&self, _: CallContext, _: Wanted, reply: Reply<Payload>) {
        reply.fail(Status::new(Code::Internal, "as asked"));
    }
}

/// A server on a loop of its own.
pub(crate) struct Provider {
    pub(crate) server: RunningServer,
    pub(crate) pool: EventLoopThreadPool,
}

impl Provider {
    pub(crate) fn start(address: &str) -> Result<Self, Failure> {
        let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
        let service = Service { workers: Workers::start("sleep", SLEEPERS, SLEEPERS)? };
        let server = Server::new(ServerConfig::default()).add(EchoServer(service))?;
        Ok(Self { server: server.serve(&pool, address.parse()?)?, pool })
    }
}

pub(crate) fn serve() -> Result<(), Failure> {
    let mut provider = Provider::start("127.0.0.1:0")?;
    eprintln!("listening on {}", provider.server.local_addr());
    Ok(provider.pool.join()?)
}

pub(crate) fn load(job: &Job, addr: &str, pid: u32) -> Result<Outcome, Failure> {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
    let address: std::net::SocketAddr = addr.parse()?;
    // One for each connection, so that each has as many calls under way as is said.
    let channels = (0..job.connections)
        .map(|_| Channel::to(pool.handles(), [address], ChannelConfig::default()))
        .collect::<Result<Vec<_>, _>>()?;
    wait_until("the connections", || channels.iter().all(|channel| channel.stats().ready == 1))?;
    let meter = Meter::new(job.seconds)?;
    let request = Payload { data: vec![7; job.bytes] };
    for channel in &channels {
        for _ in 0..job.depth {
            let chain = Chain {
                client: EchoClient::new(channel.clone()),
                request: request.clone(),
                meter: Arc::clone(&meter),
            };
            chain.next();
        }
    }
    meter.watch(pid)
}

/// Calls, each begun by the end of the one before it.
struct Chain {
    client: EchoClient,
    request: Payload,
    meter: Arc<Meter>,
}

impl Chain {
    fn next(self) {
        let began = Instant::now();
        let call = self.client.say(&self.request);
        let _ = call.then(move |outcome| {
            let well = outcome.is_ok_and(|answer| answer.data.len() == self.request.data.len());
            if self.meter.ended(began, well) {
                self.next();
            }
        });
    }
}
