//! `/metrics`: what the node counts, in the text format of Prometheus. Nothing is kept for it: each scrape reads the counters that are there.

use std::fmt;
use std::sync::Arc;

use daemon::page::{Collector, Encoder, Page};
use reactor::{CloseReason, LoopHandle};
use store::pool::PoolState;

use crate::service::Node;

/// Where the counters are.
pub(crate) struct Counters {
    pub(crate) node: Arc<Node>,
    pub(crate) loops: Vec<LoopHandle>,
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
        self.loops(&mut page)?;
        self.store(&mut page)?;
        self.pool(&mut page)?;
        self.login(&mut page)?;
        self.cluster(&mut page)?;
        self.log(&mut page)?;
        page.gauge("users_online", "Users with a session on this node.", count(self.node.directory.online()))
    }
}

impl Counters {
    fn loops(&self, page: &mut Page<'_>) -> fmt::Result {
        let all: Vec<_> = self.loops.iter().map(|handle| (handle.index(), handle.stats())).collect();
        let of = |get: fn(&reactor::LoopStats) -> u64| {
            all.iter().map(move |(at, stats)| (at.to_string(), get(stats))).collect::<Vec<_>>().into_iter()
        };
        page.gauges("connections", "Connections, by loop.", "loop", of(|stats| stats.connections()))?;
        page.counters("connections_opened", "Connections opened.", "loop", of(|stats| stats.opened))?;
        page.counters(
            "connections_shed",
            "Connections refused for a limit.",
            "loop",
            of(|stats| stats.shed),
        )?;
        page.counters("bytes_in", "Bytes read.", "loop", of(|stats| stats.bytes_in))?;
        page.counters("bytes_out", "Bytes written.", "loop", of(|stats| stats.bytes_out))?;
        page.counters("lines_in", "Lines from clients.", "loop", of(|stats| stats.frames))?;
        page.counters("loop_turns", "Turns of the loop.", "loop", of(|stats| stats.turns))?;
        page.counters(
            "loop_slow_callbacks",
            "Callbacks over 25 ms.",
            "loop",
            of(|stats| stats.slow_callbacks),
        )?;
        page.counters("loop_panics", "Panics caught.", "loop", of(|stats| stats.panics))?;
        let lag = |q: f64| {
            move |stats: &reactor::LoopStats| u64::try_from(stats.lag(q).as_micros()).unwrap_or(u64::MAX)
        };
        let lags = all.iter().map(|(at, stats)| (at.to_string(), lag(0.99)(stats)));
        page.gauges("loop_lag_p99_micros", "99 % of turns took at most so long.", "loop", lags)?;
        page.gauges("loop_lag_max_micros", "The longest turn.", "loop", of(|stats| stats.lag_max_micros))?;
        let closes = CloseReason::LABELS.iter().enumerate().map(|(reason, label)| {
            let sum = all.iter().filter_map(|(_, stats)| stats.closes.get(reason)).sum();
            ((*label).to_owned(), sum)
        });
        page.counters("connections_closed", "Connections closed, by reason.", "reason", closes)
    }

    fn store(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = self.node.store.stats();
        page.counter("store_messages", "Messages committed.", stats.messages)?;
        page.counter("store_expired_messages", "Messages deleted for their age.", stats.expired)?;
        page.counter("store_batches", "Transactions of the writers.", stats.batches)?;
        page.counter("store_failed_batches", "Those whose commit failed.", stats.failed_batches)?;
        page.counter("store_duplicates", "Sends answered with an earlier result.", stats.duplicates)?;
        page.counter("store_refused", "Sends refused or failed.", stats.refused)?;
        page.counter("store_overloads", "Jobs refused because a queue was full.", stats.overloads)?;
        page.gauge("store_write_queue", "Write jobs waiting.", count(stats.write_queue))?;
        page.gauge("store_write_queue_bytes", "Bytes of text waiting.", count(stats.write_queue_bytes))?;
        page.gauge("store_cursor_queue", "Cursor writes waiting.", count(stats.cursor_queue))?;
        page.gauge("store_read_queue", "Read jobs waiting.", count(stats.read_queue))
    }

    fn pool(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(stats) = self.node.store.pool_stats() else { return Ok(()) };
        let states = [
            ("starting", PoolState::Starting),
            ("up", PoolState::Up),
            ("degraded", PoolState::Degraded),
            ("down", PoolState::Down),
            ("draining", PoolState::Draining),
            ("closed", PoolState::Closed),
        ];
        let states = states.map(|(name, state)| (name.to_owned(), u64::from(state == stats.state)));
        page.gauges("pool_state", "1 for the state that the pool is in.", "state", states.into_iter())?;
        let connections = [("idle", stats.idle), ("busy", stats.busy), ("connecting", stats.connecting)]
            .map(|(name, value)| (name.to_owned(), count(value)));
        page.gauges("pool_connections", "Connections to the database.", "state", connections.into_iter())?;
        page.gauge("pool_waiting", "Threads that wait for a connection.", count(stats.waiting))?;
        page.counter("pool_acquired", "Connections given out.", stats.acquired)?;
        page.counter("pool_waited", "Of these, such that were waited for.", stats.waited)?;
        let micros = |q| u64::try_from(stats.wait(q).as_micros()).unwrap_or(u64::MAX);
        page.gauge("pool_wait_p99_micros", "99 % of acquires waited at most so long.", micros(0.99))?;
        page.gauge("pool_wait_p999_micros", "99.9 % of acquires waited at most so long.", micros(0.999))?;
        let refused = [("timeout", stats.timeouts), ("overload", stats.overloads), ("down", stats.down)]
            .map(|(name, value)| (name.to_owned(), value));
        page.counters("pool_refused", "Acquires without a connection.", "why", refused.into_iter())?;
        page.counter("pool_connects", "Connects that succeeded.", stats.connects)?;
        page.counter("pool_connect_failures", "Connects that failed.", stats.connect_failures)?;
        let closed = [
            ("failed", stats.discarded),
            ("broken", stats.found_broken),
            ("idle", stats.reclaimed),
            ("old", stats.retired),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        page.counters("pool_closed", "Connections closed.", "why", closed.into_iter())?;
        page.counter("pool_leaks", "Connections held for too long.", stats.leaks)
    }

    /// The way to the login service, where that is in other processes.
    fn login(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(stats) = self.node.login.channel_stats() else { return Ok(()) };
        page.gauge("login_connections", "Connections to login services.", count(stats.ready))?;
        page.counter("login_calls", "Calls to login services that ended.", stats.calls)?;
        page.counter("login_calls_failed", "Those of them that were refused or failed.", stats.failed)?;
        page.counter("login_retries", "Further tries.", stats.retries)?;
        page.counter("login_ejections", "Login services left alone for their failures.", stats.ejections)
    }

    fn cluster(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(stats) = self.node.cluster.as_ref().map(|cluster| cluster.stats()) else { return Ok(()) };
        let up = [("receiving", stats.tool.receiving), ("sending", stats.tool.sending)]
            .map(|(name, up)| (name.to_owned(), u64::from(up)));
        page.gauges("redis_up", "1 while Redis is reached.", "way", up.into_iter())?;
        page.counter("redis_connects", "Connections made to Redis.", stats.tool.connects)?;
        page.gauge("redis_channels", "Channels that are heard.", count(stats.tool.channels))?;
        page.counter("redis_received", "Messages heard.", stats.tool.received)?;
        page.counter("redis_published", "Messages published.", stats.published)?;
        page.counter("redis_lost", "Jobs let go while Redis was away or slow.", stats.tool.lost)?;
        page.gauge("redis_queue", "Jobs waiting for Redis.", count(stats.waiting))?;
        page.gauge("cluster_nodes", "Other nodes that are alive.", count(stats.others))?;
        page.gauge("cluster_users_online", "Users with a session on any node.", count(stats.users))
    }

    fn log(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = self.log.stats();
        page.counter("log_records", "Records logged.", stats.produced)?;
        page.counter("log_written", "Records written.", stats.written)?;
        page.counter("log_dropped", "Records dropped.", stats.dropped())?;
        let causes = [
            ("full", stats.refused_by_level.total()),
            ("unwritable", stats.lost_by_level.total()),
            ("ended", stats.late_by_level.total()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        page.counters("log_dropped_by_cause", "Records dropped, by cause.", "cause", causes.into_iter())?;
        let levels =
            log::Level::iter().map(|level| (level.as_str().to_lowercase(), stats.dropped_by_level.of(level)));
        page.counters("log_dropped_by_level", "Records dropped, by level.", "level", levels)?;
        page.counter("log_suppressed", "Records that the limit of a place kept out.", stats.suppressed)?;
        page.gauge("log_pending", "Records that wait for the file-writer.", stats.pending_records)?;
        page.gauge("log_pending_bytes", "Their bytes.", stats.pending_bytes)?;
        page.gauge("log_threads", "Threads that have logged and live.", stats.threads)?;
        page.counter("log_bytes", "Bytes written.", stats.bytes_written)?;
        page.counter("log_flushes", "Times that lines were written out.", stats.flushes)?;
        page.counter("log_syncs", "Times that the file was synced.", stats.syncs)?;
        page.counter("log_write_errors", "Failures to open, write or roll the file.", stats.write_errors)?;
        page.counter("log_reopens", "Times that the file was opened again.", stats.reopens)?;
        page.counter("log_rolls", "Times that the file was rolled.", stats.rolls)
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
