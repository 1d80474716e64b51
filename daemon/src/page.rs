//! `/metrics`: figures in the text format of Prometheus. Nothing is kept for it: each scrape reads the counters that are there.

use std::fmt;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::DescriptorEncoder as Encoder;

/// The content type of the text.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// What `counters` collects, with names that begin with `prefix`.
    #[must_use]
    pub fn new(prefix: &str, counters: impl Collector) -> Self {
        let mut registry = Registry::with_prefix(prefix);
        registry.register_collector(Box::new(counters));
        Self { registry }
    }

    /// All of them as they are now.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail; it ends with the mark of the end.
        let _ = encode_registry(&mut text, &self.registry);
        text.push_str("# EOF\n");
        text
    }
}

/// Writes metrics one after the other.
#[derive(Debug)]
pub struct Page<'a>(pub DescriptorEncoder<'a>);

impl Page<'_> {
    /// A number that only grows.
    ///
    /// # Errors
    /// The encoder's.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    /// A number as it is now.
    ///
    /// # Errors
    /// The encoder's.
    #[expect(clippy::cast_precision_loss, reason = "a figure for a graph")]
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(value as f64);
        gauge.encode(self.0.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    /// One counter for each value of a label.
    ///
    /// # Errors
    /// The encoder's.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (String, u64)>,
    ) -> fmt::Result {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (at, value) in values {
            let labels = [(label, at.as_str())];
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// One gauge for each value of a label.
    ///
    /// # Errors
    /// The encoder's.
    #[expect(clippy::cast_precision_loss, reason = "a figure for a graph")]
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (String, u64)>,
    ) -> fmt::Result {
        let kind = ConstGauge::new(0.0).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (at, value) in values {
            let labels = [(label, at.as_str())];
            ConstGauge::new(value as f64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Two;

    impl Collector for Two {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut page = Page(encoder);
            page.gauge("waiting", "How many wait.", 3)?;
            page.counters("calls", "Calls.", "method", [("say".to_owned(), 2)].into_iter())
        }
    }

    #[test]
    fn figures_become_lines_with_the_prefix_and_an_end() {
        let text = Metrics::new("x", Two).text();
        assert!(text.contains("\nx_waiting 3.0\n"), "{text}");
        assert!(text.contains("\nx_calls_total{method=\"say\"} 2\n"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
    }
}
