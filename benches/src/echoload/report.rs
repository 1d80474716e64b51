//! What a run of `echoload` found out: for people as text, for programs as JSON.

use std::fmt;

use serde::Serialize;

use crate::report::Quantiles;
use crate::table::number;

/// A run's result.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "shape", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EchoReport {
    /// Of messages that came back.
    Echo(LoadReport),
    /// Of bytes that did not.
    Sink(LoadReport),
    /// Of connections that were held.
    Hold(HoldReport),
    /// Of connections that were opened and closed.
    Cycles(CyclesReport),
    /// Of lines that went to many.
    Hub(HubReport),
}

/// What flowed.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Connections.
    pub connections: usize,
    /// Bytes of a message.
    pub size: u64,
    /// Messages of each connection on their way.
    pub window: u64,
    /// The client's threads.
    pub threads: usize,
    /// The measured time.
    pub seconds: f64,
    /// Messages that came back in it.
    pub messages: u64,
    /// The same per second.
    pub messages_per_second: f64,
    /// Mebibytes one way, per second.
    pub mib_per_second: f64,
    /// From the write of a message until it is back, in microseconds; one message of each connection at a time.
    pub latency_us: Quantiles,
    /// Messages of each connection in the measured time.
    pub per_connection: Option<Spread>,
    /// Connections that had none.
    pub starved: usize,
    /// CPU time of the server for each message, user and system; with a process to watch.
    pub server_cpu_ns_per_message: Option<f64>,
    /// CPU time of the server, in cores.
    pub server_cores: Option<f64>,
    /// CPU time of the client, in cores.
    pub load_cores: f64,
}

/// How something is spread over the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The least.
    pub least: u64,
    /// A tenth of the connections have less.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// A tenth of the connections have more.
    pub p90: u64,
    /// The most.
    pub most: u64,
}

/// What held connections cost.
#[derive(Clone, Debug, Serialize)]
pub struct HoldReport {
    /// Connections.
    pub connections: usize,
    /// Bytes of the one message that each sent.
    pub size: u64,
    /// Resident bytes of the server before anybody came.
    pub empty_bytes: u64,
    /// With all connected.
    pub fresh_bytes: u64,
    /// After one message of each.
    pub touched_bytes: u64,
    /// What the server has grown by for each connection that has said nothing.
    pub fresh_bytes_per_connection: f64,
    /// For each connection that has had one message back.
    pub touched_bytes_per_connection: f64,
    /// How long the server was watched with all connected and idle.
    pub watched_seconds: f64,
    /// How often a thread of the server went to sleep in that time: it had been woken before.
    pub wakeups: u64,
}

/// What opening and closing came to.
#[derive(Clone, Debug, Serialize)]
pub struct CyclesReport {
    /// Connections opened and closed.
    pub cycles: u64,
    /// The time they took.
    pub seconds: f64,
}

/// What lines to many came to.
#[derive(Clone, Debug, Serialize)]
pub struct HubReport {
    /// Connections, the one that sends included.
    pub connections: usize,
    /// Lines sent.
    pub lines: u64,
    /// Bytes of a line with its end.
    pub size: u64,
    /// The time they took.
    pub seconds: f64,
    /// Lines received, per second.
    pub deliveries_per_second: f64,
    /// CPU time of the server for each line received.
    pub server_cpu_ns_per_delivery: Option<f64>,
}

impl Spread {
    /// Of these values; `None` of none.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let last = values.len().checked_sub(1)?;
        let at = |tenths: usize| values.get(last * tenths / 10).copied();
        Some(Self { least: at(0)?, p10: at(1)?, p50: at(5)?, p90: at(9)?, most: at(10)? })
    }
}

impl fmt::Display for EchoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo(report) | Self::Sink(report) => report.fmt(f),
            Self::Hold(report) => report.fmt(f),
            Self::Cycles(CyclesReport { cycles, seconds }) => {
                writeln!(f, "{cycles} connections opened and closed in {seconds:.3} s")
            }
            Self::Hub(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, size, window, seconds, .. } = self;
        writeln!(
            f,
            "{connections} connections, {size} bytes, {window} in flight, {seconds:.3} s: {} messages, {}/s, {} MiB/s",
            self.messages,
            number(self.messages_per_second),
            number(self.mib_per_second),
        )?;
        let Quantiles { p50, p99, p999, max, .. } = self.latency_us;
        writeln!(f, "latency in us: p50 {p50}, p99 {p99}, p999 {p999}, most {max}")?;
        if let Some(Spread { least, p10, p50, p90, most }) = self.per_connection {
            writeln!(
                f,
                "messages per connection: least {least}, p10 {p10}, p50 {p50}, p90 {p90}, most {most}; {} starved",
                self.starved
            )?;
        }
        if let (Some(cpu), Some(cores)) = (self.server_cpu_ns_per_message, self.server_cores) {
            writeln!(f, "server: {} ns of CPU per message, {cores:.2} cores", number(cpu))?;
        }
        writeln!(f, "client: {:.2} cores", self.load_cores)
    }
}

impl fmt::Display for HoldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections held: {} resident bytes each when fresh, {} after a message of {} bytes",
            self.connections,
            number(self.fresh_bytes_per_connection),
            number(self.touched_bytes_per_connection),
            self.size,
        )?;
        writeln!(f, "idle for {:.1} s: {} wake-ups", self.watched_seconds, self.wakeups)
    }
}

impl fmt::Display for HubReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, lines, size, seconds, .. } = self;
        let rate = number(self.deliveries_per_second);
        writeln!(
            f,
            "{lines} lines of {size} bytes to {connections} connections in {seconds:.3} s: {rate} deliveries/s"
        )?;
        if let Some(cpu) = self.server_cpu_ns_per_delivery {
            writeln!(f, "server: {} ns of CPU per delivery", number(cpu))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_by_rank() {
        assert_eq!(Spread::of(Vec::new()), None);
        let spread = Spread::of((0..=100).rev().collect()).unwrap();
        assert_eq!(spread, Spread { least: 0, p10: 10, p50: 50, p90: 90, most: 100 });
    }
}
