//! Calls a service at all its endpoints, over connections that are kept open.

mod budget;
mod choice;
mod config;
mod endpoint;
mod handler;
mod live;
mod pool;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use reactor::{Address, LoopHandle, ServiceConfig, ServiceHandle};

pub use config::{Balance, ChannelConfig, EjectionConfig, RetryConfig};

use crate::call::Call;
use crate::completion::{Completion, fail_here};
use crate::context::{CallContext, CallState};
use crate::method::MethodInfo;
use crate::registry::{Instance, InstanceState, Registry, Watching};
use crate::reply::RawReply;
use crate::service::Service;
use crate::status::{Code, Status};
use crate::wire::Entry;

use budget::RetryBudget;
use handler::ClientHandler;

/// Calls that may wait to be taken up by one loop.
const POSTS_MAX: usize = 32 * 1024;

/// A call with its options, on its way to a loop.
pub(crate) struct Outgoing {
    pub(crate) method: &'static MethodInfo,
    pub(crate) body: Bytes,
    /// `None`: the channel's default.
    pub(crate) timeout: Option<Duration>,
    /// What the call inherited.
    pub(crate) until: Option<Instant>,
    pub(crate) metadata: Vec<Entry>,
    /// Whether it waits for an endpoint.
    pub(crate) waits: bool,
    pub(crate) retries: bool,
}

/// What other threads tell a loop's handler.
pub(crate) enum Post {
    Call(u64, Box<(Outgoing, Completion)>),
    Cancel(u64),
    Endpoints(Arc<Endpoints>),
    /// The last owner of the channel is gone.
    Stop,
}

/// Where calls are to go from now on.
pub(crate) struct Endpoints {
    /// With how much of the load each is meant for.
    pub(crate) wanted: Vec<(Address, u32)>,
    /// Which of those that are not wanted get no more calls at once. The others get calls as long as they answer. `None`: all.
    pub(crate) leaving: Option<Vec<Address>>,
}

/// What the loops of a channel and its owners share.
pub(crate) struct Shared {
    pub(crate) config: ChannelConfig,
    pub(crate) budget: RetryBudget,
    pub(crate) counts: Counts,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) retries_denied: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) ejections: AtomicU64,
    pub(crate) ready: AtomicUsize,
    pub(crate) connects: AtomicU64,
}

/// What a channel has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Calls that ended.
    pub calls: u64,
    /// Those of them that ended in an error.
    pub failed: u64,
    /// Further tries.
    pub retries: u64,
    /// Further tries that the budget did not allow.
    pub retries_denied: u64,
    /// Answers that nobody waited for any more.
    pub late: u64,
    /// How often an endpoint was left alone for its failures.
    pub ejections: u64,
    /// Connections that calls can be sent on now.
    pub ready: usize,
    /// Attempts to connect.
    pub connects: u64,
}

/// A loop that a channel has connections on.
struct Link {
    handle: LoopHandle,
    service: ServiceHandle<Post>,
}

struct Pool {
    shared: Arc<Shared>,
    links: Vec<Link>,
    /// Numbers of calls. The loop of a call is its number modulo the loops.
    made: AtomicU64,
    /// What tells of the endpoints, until the channel ends.
    watching: Mutex<Option<Watching>>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for link in &self.links {
            // A loop that has stopped has closed the connections already.
            let _ = link.service.post(Post::Stop);
        }
    }
}

#[derive(Clone)]
enum Way {
    Pool(Arc<Pool>),
    /// Straight to a service in this process, without a connection.
    Local(Arc<dyn Service>),
}

/// The way to a service: a pool of connections to each of its endpoints, on one or more loops. Clones are the same channel; when the last is dropped, the
/// connections are closed.
#[derive(Clone)]
pub struct Channel {
    way: Way,
}

impl Channel {
    /// A channel on these loops to endpoints that stay the same.
    ///
    /// # Errors
    /// When a loop does not take it, or there is none.
    pub fn to<A: Into<Address>>(
        loops: &[LoopHandle],
        endpoints: impl IntoIterator<Item = A>,
        config: ChannelConfig,
    ) -> io::Result<Self> {
        let channel = Self::idle(loops, config)?;
        channel.set_endpoints(endpoints.into_iter().map(Into::into).collect());
        Ok(channel)
    }

    /// A channel on these loops that has no endpoints yet.
    ///
    /// # Errors
    /// When a loop does not take it, or there is none.
    pub(crate) fn idle(loops: &[LoopHandle], config: ChannelConfig) -> io::Result<Self> {
        if loops.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a channel needs at least one loop"));
        }
        let config = config.checked();
        let budget = RetryBudget::new(&config.retry, Instant::now());
        let shared = Arc::new(Shared { config, budget, counts: Counts::default() });
        let mut links = Vec::new();
        for handle in loops {
            let slot = handle.service_slot(POSTS_MAX);
            links.push(Link { handle: handle.clone(), service: slot.handle() });
            let theirs = Arc::clone(&shared);
            handle
                .post(move |event_loop| {
                    let service = service_config(&theirs.config);
                    if let Err(error) = event_loop.add_service(slot, service, ClientHandler::new(theirs)) {
                        log::error!("no room for a channel on this loop: {error}");
                    }
                })
                .map_err(io::Error::other)?;
        }
        Ok(Self {
            way: Way::Pool(Arc::new(Pool {
                shared,
                links,
                made: AtomicU64::new(0),
                watching: Mutex::default(),
            })),
        })
    }

    /// A channel straight to a service in this process: for tests with mocks, and for services that may run inside.
    pub fn local(service: impl Service) -> Self {
        Self { way: Way::Local(Arc::new(service)) }
    }

    /// Replaces the endpoints. Calls under way on one that is not among them are still waited for.
    pub fn set_endpoints(&self, endpoints: Vec<Address>) {
        let Way::Pool(pool) = &self.way else { return };
        let wanted = endpoints.into_iter().map(|address| (address, 1)).collect();
        tell(pool.links.iter().map(|link| &link.service), Endpoints { wanted, leaving: None });
    }

    /// A channel on these loops to the providers of a service that a registry knows. The registry has to live as long as news is wanted. Who is not in it any more and did
    /// not say that it leaves is called as long as it answers on the connection that there is; and if half of all are missing at once, it is the list that is doubted,
    /// and they are connected to as well.
    ///
    /// # Errors
    /// When a loop does not take it, or there is none.
    pub fn of_service(
        loops: &[LoopHandle],
        registry: &dyn Registry,
        service: &str,
        config: ChannelConfig,
    ) -> io::Result<Self> {
        let channel = Self::idle(loops, config)?;
        if let Way::Pool(pool) = &channel.way {
            // Not the pool itself: what it holds would hold it.
            let services: Vec<_> = pool.links.iter().map(|link| link.service.clone()).collect();
            let watching = registry.watch(service, Box::new(move |all| tell(&services, sorted(all))));
            *pool.watching.lock() = Some(watching);
        }
        Ok(channel)
    }

    /// Prepares a call.
    pub fn call<T: Message + Default + 'static>(
        &self,
        method: &'static MethodInfo,
        request: &impl Message,
    ) -> Call<T> {
        Call::new(self.clone(), method, request.encode_to_vec().into())
    }

    pub(crate) const fn is_local(&self) -> bool {
        matches!(self.way, Way::Local(_))
    }

    /// What was counted, over all loops. A channel within the process counts nothing.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let Way::Pool(pool) = &self.way else { return ChannelStats::default() };
        let counts = &pool.shared.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ChannelStats {
            calls: read(&counts.calls),
            failed: read(&counts.failed),
            retries: read(&counts.retries),
            retries_denied: read(&counts.retries_denied),
            late: read(&counts.late),
            ejections: read(&counts.ejections),
            ready: counts.ready.load(Ordering::Relaxed),
            connects: read(&counts.connects),
        }
    }

    /// Gives a call to a loop: to the one that this thread runs, if it is the channel's, else to each in turn. Its number is given back.
    pub(crate) fn start(&self, outgoing: Outgoing, completion: Completion) -> u64 {
        let pool = match &self.way {
            Way::Pool(pool) => pool,
            Way::Local(service) => {
                call_local(service.as_ref(), outgoing, completion);
                return 0;
            }
        };
        let count = pool.links.len();
        let made = pool.made.fetch_add(1, Ordering::Relaxed);
        let mut at = usize::try_from(made).unwrap_or(0) % count;
        if count > 1
            && crate::context::is_loop_thread()
            && let Some(own) = pool.links.iter().position(|link| link.handle.is_loop_thread())
        {
            at = own;
        }
        // Never the same for two calls, and its loop can be told from it.
        let key = made.wrapping_mul(count as u64).wrapping_add(at as u64) & KEY_MAX;
        if let Some(link) = pool.links.get(at)
            && let Err((error, Post::Call(_, back))) =
                link.service.post(Post::Call(key, Box::new((outgoing, completion))))
        {
            let code = match error {
                reactor::PostError::Full => Code::ResourceExhausted,
                _ => Code::Unavailable,
            };
            fail_here(back.1, Status::not_sent(code, error.to_string()));
        }
        key
    }

    pub(crate) fn cancel(&self, key: u64) {
        let Way::Pool(pool) = &self.way else { return };
        let at = usize::try_from(key % pool.links.len() as u64).unwrap_or(0);
        if let Some(link) = pool.links.get(at) {
            // Where it is not taken, the call ends by its deadline.
            let _ = link.service.post(Post::Cancel(key));
        }
    }
}

/// Numbers of calls leave the top two bits to the other timers of a loop.
const KEY_MAX: u64 = u64::MAX >> 2;

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.way {
            Way::Pool(pool) => {
                f.debug_struct("Channel").field("loops", &pool.links.len()).finish_non_exhaustive()
            }
            Way::Local(service) => f.debug_struct("Channel").field("local", &service.info().name).finish(),
        }
    }
}

/// Instances by what they want of callers.
fn sorted(instances: &[Instance]) -> Endpoints {
    let (up, draining): (Vec<_>, Vec<_>) =
        instances.iter().partition(|instance| instance.state == InstanceState::Up);
    let wanted = up.into_iter().map(|one| (Address::from(one.address), one.weight.max(1))).collect();
    let leaving = draining.into_iter().map(|one| Address::from(one.address)).collect();
    Endpoints { wanted, leaving: Some(leaving) }
}

fn tell<'a>(services: impl IntoIterator<Item = &'a ServiceHandle<Post>>, endpoints: Endpoints) {
    let endpoints = Arc::new(endpoints);
    for service in services {
        if let Err((error, _)) = service.post(Post::Endpoints(Arc::clone(&endpoints))) {
            log::warn!("a loop did not take the endpoints of a channel: {error}");
        }
    }
}

/// The limits of a channel's connections. Their output does not pause their reading: the server's does.
fn service_config(config: &ChannelConfig) -> ServiceConfig {
    let mut service = ServiceConfig::default();
    service.output_pauses_reading = usize::MAX;
    service.connect_timeout = config.connect_timeout;
    service
}

/// A call without a connection. It runs on the thread that makes it, as far as the service does.
fn call_local(service: &dyn Service, outgoing: Outgoing, completion: Completion) {
    let Outgoing { method, body, timeout, until, metadata, .. } = outgoing;
    let own = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let deadline = until.into_iter().chain(own).min();
    let state = Arc::new(CallState::default());
    let cx = CallContext { method, deadline, metadata, peer: None, state: Arc::clone(&state) };
    let reply = RawReply::to_caller(completion, state);
    match service.info().methods.iter().position(|known| known.path == method.path) {
        Some(at) => crate::context::scoped(deadline, || service.call(at, cx, &body, reply)),
        None => reply.fail(Status::unimplemented()),
    }
}
