//! What `/metrics` tells of the service.

use std::fmt;
use std::sync::Arc;

use daemon::page::{Collector, Encoder, Page};
use logd::{LoginPool, TokenCache};
use rpc::{Code, MethodStats};
use store::Store;

/// Where the counters are.
#[derive(Clone)]
pub(crate) struct Counters {
    pub(crate) rpc: Arc<rpc::RunningServer>,
    pub(crate) login: LoginPool,
    pub(crate) store: Store,
    pub(crate) cache: Option<Arc<TokenCache>>,
    pub(crate) log: Arc<asynclog::Guard>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Collector for Counters {
    fn encode(&self, encoder: Encoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.calls(&mut page)?;
        self.queues(&mut page)?;
        self.tables(&mut page)?;
        self.tokens(&mut page)?;
        let stats = self.log.stats();
        page.counter("log_records", "Records logged.", stats.produced)?;
        page.counter("log_dropped", "Records dropped.", stats.dropped())
    }
}

impl Counters {
    fn calls(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge("connections", "Connections of chat servers.", count(self.rpc.connections()))?;
        let all = self.rpc.metrics();
        let of = |get: fn(&MethodStats) -> u64| {
            all.iter().map(move |stats| (short(stats.method), get(stats))).collect::<Vec<_>>().into_iter()
        };
        page.counters("calls", "Calls that were answered.", "method", of(MethodStats::calls))?;
        page.counters("call_errors", "Those of them that were refused.", "method", of(MethodStats::errors))?;
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let p99 = all.iter().map(|stats| (short(stats.method), micros(stats.latencies.quantile(0.99))));
        page.gauges("call_p99_micros", "99 % of calls took at most so long.", "method", p99)?;
        let codes = Code::ALL.iter().zip(0_usize..).map(|(code, at)| {
            let sum = all.iter().filter_map(|stats| stats.by_code.get(at)).sum();
            (code.name().to_owned(), sum)
        });
        page.counters("calls_by_code", "Calls that were answered, by status.", "code", codes)
    }

    fn queues(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = self.login.stats();
        page.gauge("hash_queue", "Calls that wait for a hash.", count(stats.hash_queue))?;
        page.gauge("token_queue", "Other calls that wait.", count(stats.token_queue))?;
        page.counter("overloads", "Calls refused because a queue was full.", stats.overloads)?;
        page.counter("expired", "Calls whose time was over before their turn.", stats.expired)?;
        page.counter("held_up", "Passwords not tried because too many before had been wrong.", stats.held_up)
    }

    fn tokens(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(stats) = self.cache.as_ref().map(|cache| cache.stats()) else { return Ok(()) };
        page.gauge("redis_up", "Whether Redis answered when it was last asked.", u64::from(stats.is_up))?;
        page.counter("token_hits", "Tokens that were found in Redis.", stats.hits)?;
        page.counter("token_misses", "Tokens that were looked for in the tables.", stats.misses)?;
        page.counter("redis_failures", "Commands that Redis did not carry out.", stats.failures)?;
        page.gauge("redis_owed", "Revocations of which Redis does not know yet.", count(stats.owed))
    }

    fn tables(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = self.store.stats();
        page.counter("store_overloads", "Jobs refused because a queue was full.", stats.overloads)?;
        page.gauge("store_write_queue", "Write jobs waiting.", count(stats.write_queue))?;
        page.gauge("store_read_queue", "Read jobs waiting.", count(stats.read_queue))?;
        let Some(pool) = self.store.pool_stats() else { return Ok(()) };
        let is_up = pool.state == store::pool::PoolState::Up;
        page.gauge("pool_up", "Whether the database answers.", u64::from(is_up))?;
        page.gauge("pool_busy", "Connections to the database in use.", count(pool.busy))?;
        page.gauge("pool_waiting", "Threads that wait for a connection.", count(pool.waiting))
    }
}

/// The method without its service.
fn short(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
