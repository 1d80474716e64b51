//! The panic hook: a panic is the last record of many programs, and must not be lost with what came before it.

use std::panic::{self, PanicHookInfo};
use std::sync::Arc;

use log::{Level, Record};

use crate::caller;
use crate::config::PANIC_FLUSH_MAX;
use crate::shared::Shared;

/// Puts our hook before the one that is set. It stays for the rest of the process; after the log's end it only calls the other.
pub(crate) fn install(shared: Arc<Shared>) {
    let next = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // One of the log's own threads would wait for itself.
        if !caller::is_inside() {
            record(&shared, info);
            // A loop catches the panic of a handler and goes on, so its thread must not wait; an error is written at once anyway. A panic that
            // aborts the process ends with `next`, and there the record may be lost.
            if !caller::never_waits() {
                let _ = shared.barrier(PANIC_FLUSH_MAX);
            }
        }
        next(info);
    }));
}

fn record(shared: &Shared, info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a payload that is no text");
    let mut record = Record::builder();
    record.level(Level::Error).target("panic");
    if let Some(place) = info.location() {
        record.file(Some(place.file())).line(Some(place.line()));
    }
    if shared.filter.allows(Level::Error, "panic") {
        shared.submit(&record.args(format_args!("panicked: {message}")).build());
    }
}
