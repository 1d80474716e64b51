//! How a server of the examples ends: SIGINT and SIGTERM stop its loops, a second one at once.

use std::io;
use std::time::Duration;

use reactor::{EventLoopThreadPool, LoopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// From now on the first signal stops the loops of `pool`: connections are closed, and what was sent to them is delivered within the loops' deadline. The second lets
/// them wait for nothing more.
pub(crate) fn stop_on_signals(pool: &EventLoopThreadPool) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let loops = pool.handles().to_vec();
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            loops.iter().for_each(LoopHandle::stop);
        }
        if signals.next().is_some() {
            loops.iter().for_each(|event_loop| event_loop.stop_within(Some(Duration::ZERO)));
        }
    });
    Ok(())
}
