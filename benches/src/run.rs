//! One run: from the options to the report.

use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reactor::{EventLoop, LoopConfig, ServiceConfig};

use crate::gate::Gate;
use crate::idle::Idle;
use crate::limit;
use crate::load::{Load, LoadError, Shape};
use crate::mixed::Mixed;
use crate::offline::Offline;
use crate::options::{Options, ShapeName};
use crate::pairs::Pairs;
use crate::process::Watch;
use crate::report::Report;
use crate::rooms::Rooms;
use crate::storm::Storm;

/// How long an attempt to connect may take: a server that is busy with passwords may be slow to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long closed connections may take at the end.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Runs the load that the options describe, on this thread, to its end.
///
/// # Errors
/// When it could not be run to its end. A server that broke its promises is no error here: the report says so.
pub fn run(options: &Options) -> Result<Report, LoadError> {
    let room = limit::raise();
    let users = options.users();
    if u64::try_from(users).is_ok_and(|users| users > room) {
        return Err(LoadError::Descriptors { users, room });
    }
    let watch = Watch::new(options.pid, &options.also);
    if let Some(pid) = options.pid
        && watch.sample().is_none()
    {
        return Err(LoadError::NoProcess(pid));
    }
    match options.shape {
        ShapeName::Pairs => {
            let pairs = Pairs::new(options, watch).ok_or(LoadError::NoResult)?;
            drive(options, pairs)
        }
        ShapeName::Group(size) => {
            let rooms = Rooms::new(options, size, watch).ok_or(LoadError::NoResult)?;
            drive(options, rooms)
        }
        ShapeName::Offline | ShapeName::Store | ShapeName::Fetch => {
            let offline = Offline::new(options, watch).ok_or(LoadError::NoResult)?;
            drive(options, offline)
        }
        ShapeName::Storm => drive(options, Storm::new(options, watch).ok_or(LoadError::NoResult)?),
        ShapeName::Mixed => drive(options, Mixed::new(options, watch).ok_or(LoadError::NoResult)?),
        ShapeName::Idle => drive(options, Idle::new(options, watch)),
    }
}

fn drive<S: Shape>(options: &Options, shape: S) -> Result<Report, LoadError> {
    let system = |what| move |error| LoadError::System { what, error };
    let (done, result) = mpsc::channel();
    let run_id = options.run_id.clone().unwrap_or_else(new_run_id);
    let gate = Gate::new(options.addr, run_id, options.users(), options.heartbeat, done);
    let mut config = LoopConfig::default();
    config.stop_deadline = STOP_DEADLINE;
    let mut event_loop = EventLoop::new(config).map_err(system("could not make an event loop"))?;
    let slot = event_loop.handle().service_slot(1);
    let mut service = ServiceConfig::default();
    service.connect_timeout = CONNECT_TIMEOUT;
    service.linger = STOP_DEADLINE;
    event_loop.add_service(slot, service, Load::new(gate, shape)).map_err(|_| LoadError::NoResult)?;
    event_loop.run().map_err(system("could not wait for events"))?;
    result.try_recv().map_err(|_| LoadError::NoResult)?
}

/// A name that no run before had on this machine: the time in milliseconds, to the base 36.
fn new_run_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut left = since.as_millis();
    let mut digits = Vec::new();
    while left > 0 {
        let digit = u32::try_from(left % 36).unwrap_or_default();
        digits.extend(char::from_digit(digit, 36));
        left /= 36;
    }
    digits.iter().rev().collect()
}
