//! Links: the reading of one connection follows the writing of another, so that a proxy holds no more than the marks allow.

use smallvec::SmallVec;

use crate::conn::{Conns, PauseReason};
use crate::handler::Handler;
use crate::slab::Key;

impl<H: Handler> Conns<H> {
    /// From now on `source` is not read while `sink`'s unsent output is high. A link that `source` had before is undone. `false` unless both are open.
    pub(crate) fn link(&mut self, source: Key, sink: Key) -> bool {
        if self.open(source).is_none() || self.open(sink).is_none() {
            return false;
        }
        self.unlink_source(source);
        let mut high = false;
        if let Some(conn) = self.open_mut(sink) {
            conn.make_extras().sources.push(source);
            high = conn.flags.above_high();
        }
        if let Some(conn) = self.open_mut(source) {
            conn.make_extras().sink = Some(sink);
            if high {
                conn.flags.pause(PauseReason::LINK);
            }
        }
        true
    }

    /// Undoes the link of a source, which goes on reading.
    pub(crate) fn unlink_source(&mut self, source: Key) {
        let sink = self.slab.get_mut(source).and_then(|conn| conn.extras_mut()?.sink.take());
        if let Some(extras) = sink.and_then(|sink| self.slab.get_mut(sink)?.extras_mut()) {
            extras.sources.retain(|key| *key != source);
        }
        if sink.is_some() {
            self.resume_source(source);
        }
    }

    /// Undoes all links of a connection that ends, at both of its ends.
    pub(crate) fn unlink(&mut self, key: Key) {
        if self.slab.get(key).is_none_or(|conn| conn.extras().is_none()) {
            return;
        }
        self.unlink_source(key);
        for source in self.take_sources(key) {
            if let Some(extras) = self.slab.get_mut(source).and_then(|conn| conn.extras_mut()) {
                extras.sink = None;
            }
            self.resume_source(source);
        }
    }

    fn take_sources(&mut self, sink: Key) -> SmallVec<[Key; 1]> {
        let extras = self.slab.get_mut(sink).and_then(|conn| conn.extras_mut());
        extras.map(|extras| std::mem::take(&mut extras.sources)).unwrap_or_default()
    }

    /// The output of `sink` rose above its high mark.
    pub(crate) fn pause_sources(&mut self, sink: Key) {
        let sources = self.slab.get(sink).and_then(|conn| conn.extras().map(|extras| extras.sources.clone()));
        for source in sources.unwrap_or_default() {
            if let Some(conn) = self.open_mut(source) {
                conn.flags.pause(PauseReason::LINK);
            }
        }
    }

    /// The output of `sink` fell to its low mark.
    pub(crate) fn resume_sources(&mut self, sink: Key) {
        let sources = self.slab.get(sink).and_then(|conn| conn.extras().map(|extras| extras.sources.clone()));
        for source in sources.unwrap_or_default() {
            self.resume_source(source);
        }
    }

    fn resume_source(&mut self, source: Key) {
        let Some(conn) = self.open_mut(source) else { return };
        conn.flags.unpause(PauseReason::LINK);
        if conn.wants_drive() {
            self.list_ready(source);
        }
    }
}
