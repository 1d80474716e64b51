//! A connection in somebody's hands.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::manager::Manager;
use super::slots::Entry;
use super::threads::Inner;

/// A connection of a pool. Dropping it gives it back; when its holder panics, or left it in a state that the next cannot have it in, it is closed instead.
#[must_use = "dropped, it goes back at once"]
pub struct Pooled<M: Manager> {
    pub(super) entry: Option<Entry<M::Connection>>,
    pub(super) inner: Arc<Inner<M>>,
    pub(super) holder: usize,
    pub(super) spoilt: bool,
}

impl<M: Manager> Pooled<M> {
    /// Says that the connection is not to be used again, whatever it looks like: after an error of which it is not known what the server still has to say.
    pub fn spoil(&mut self) {
        self.spoilt = true;
    }
}

impl<M: Manager> Deref for Pooled<M> {
    type Target = M::Connection;

    #[expect(clippy::expect_used, reason = "taken out by the drop alone")]
    fn deref(&self) -> &M::Connection {
        &self.entry.as_ref().expect("held until the drop").connection
    }
}

impl<M: Manager> DerefMut for Pooled<M> {
    #[expect(clippy::expect_used, reason = "taken out by the drop alone")]
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.entry.as_mut().expect("held until the drop").connection
    }
}

impl<M: Manager> Drop for Pooled<M> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let keep = !self.spoilt && !std::thread::panicking();
            self.inner.take_back(entry, self.holder, keep);
        }
    }
}

impl<M: Manager> fmt::Debug for Pooled<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled")
            .field("holder", &self.holder)
            .field("spoilt", &self.spoilt)
            .finish_non_exhaustive()
    }
}
