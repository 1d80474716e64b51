//! Idle timeouts: one timer per connection that looks when bytes last moved, so that a byte costs nothing more than noting its time.

use std::time::Duration;

use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::CloseReason;
use crate::service::ServiceCell;
use crate::slab::Key;

impl<H: Handler> ServiceCell<H> {
    /// Sets the idle timer of a connection that has just opened, if it is to have one.
    pub(crate) fn watch_idleness(&mut self, core: &mut LoopCore, key: Key) {
        let config = &self.conns.config;
        let first = [config.idle, config.idle_read, config.idle_write].into_iter().flatten().min();
        if let Some(delay) = first {
            self.set_idle_timer(core, key, delay);
        }
    }

    fn set_idle_timer(&mut self, core: &mut LoopCore, key: Key, delay: Duration) {
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Idle };
        if let Some(conn) = self.conns.open_mut(key) {
            conn.idle_timer = Some(core.timers.insert(core.deadline(delay), timer));
        }
    }

    /// Looks how long nothing has moved: closes the connection, or looks again when it could be time.
    pub(crate) fn on_idle_timer(&mut self, core: &mut LoopCore, key: Key) {
        let config = &self.conns.config;
        let (idle, idle_read, idle_write) = (config.idle, config.idle_read, config.idle_write);
        let Some(conn) = self.conns.open_mut(key) else { return };
        conn.idle_timer = None;
        let age = |ms: u32| Duration::from_millis(u64::from(core.now_ms.wrapping_sub(ms)));
        let (in_age, out_age) = (age(conn.last_in_ms), age(conn.last_out_ms));
        // While it is us who do not read, the peer's silence says nothing.
        let in_age = if conn.flags.paused() { Duration::ZERO } else { in_age };
        let rest = |limit: Option<Duration>, age: Duration| limit.map(|limit| limit.saturating_sub(age));
        let rests = [rest(idle, in_age.min(out_age)), rest(idle_read, in_age), rest(idle_write, out_age)];
        match rests.into_iter().flatten().min() {
            Some(Duration::ZERO) => self.conns.begin_close(key, CloseReason::Idle, false),
            Some(rest) => self.set_idle_timer(core, key, rest),
            None => {}
        }
    }
}
