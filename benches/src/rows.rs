//! The results of a benchmark: rows for programs, a table for people.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::table::{Table, number};

/// A figure, as it stands in `target/bench/NAME.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// Who did it.
    pub subject: String,
    /// What was measured.
    pub metric: String,
    /// In what.
    pub unit: String,
    /// The figure: a median where there were several rounds.
    pub value: f64,
    /// The figure over that of the subject it is compared with.
    pub peer_ratio: Option<f64>,
    /// What the figure, or the ratio where there is one, is to reach.
    pub bar: Option<Bar>,
    /// Whether it does.
    pub holds: Option<bool>,
}

/// A bar, written as `>= 4` or `<= 2048`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// At most so much, as far as can be measured: so much more is taken for noise.
    AtMostAbout(f64, f64),
    /// Less than so much.
    Below(f64),
}

/// All figures of a benchmark, with the spread of each over the rounds.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Vec<(Row, Option<(f64, f64)>)>,
}

impl Bar {
    /// Whether a figure reaches it.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
            Self::AtMostAbout(bar, noise) => value <= bar + noise,
            Self::Below(bar) => value < bar,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, ">= {bar}"),
            Self::AtMost(bar) => write!(f, "<= {bar}"),
            Self::AtMostAbout(bar, noise) => write!(f, "<= {bar} (+ {noise})"),
            Self::Below(bar) => write!(f, "< {bar}"),
        }
    }
}

impl Serialize for Bar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Rows {
    /// Adds a figure from its values over the rounds; nothing when there are none.
    pub fn add(
        &mut self,
        case: &str,
        subject: &str,
        metric: &str,
        unit: &str,
        values: &[f64],
        bar: Option<Bar>,
    ) {
        let Some(value) = median(values) else { return };
        let spread = values.iter().fold(None, |spread: Option<(f64, f64)>, value| {
            let (least, most) = spread.unwrap_or((*value, *value));
            Some((least.min(*value), most.max(*value)))
        });
        let row = Row {
            case: case.to_owned(),
            subject: subject.to_owned(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            value,
            peer_ratio: None,
            bar,
            holds: bar.map(|bar| bar.holds(value)),
        };
        self.rows.push((row, spread.filter(|_| values.len() > 1)));
    }

    /// Compares the figure added last with those of a peer from the same rounds: the median of the rounds' ratios is what the bar is for.
    pub fn compare(&mut self, values: &[f64], peer: &[f64], bar: Bar) {
        let ratios: Vec<f64> = values.iter().zip(peer).map(|(value, peer)| value / peer).collect();
        if let (Some((row, _)), Some(ratio)) = (self.rows.last_mut(), median(&ratios)) {
            row.peer_ratio = Some(ratio);
            row.bar = Some(bar);
            row.holds = Some(bar.holds(ratio));
        }
    }

    /// Adds the figures of several subjects from the same rounds under one metric, and compares the first one's with those of the peers that have a bar.
    ///
    /// A comparison beyond the first has a row of its own.
    pub fn add_compared(
        &mut self,
        (case, metric, unit): (&str, &str, &str),
        subjects: &[(&str, &[f64])],
        bars: &[(&str, Bar)],
    ) {
        let Some((ours, values)) = subjects.first() else { return };
        let peers = bars.iter().filter_map(|(name, bar)| {
            subjects.iter().find(|(subject, _)| subject == name).map(|(_, values)| (name, values, bar))
        });
        let mut compared = false;
        for (name, peer, bar) in peers {
            self.add(case, ours, &format!("{metric}, against {name}"), unit, values, None);
            self.compare(values, peer, *bar);
            compared = true;
        }
        let others = subjects.iter().skip(usize::from(compared));
        for (subject, values) in others {
            self.add(case, subject, metric, unit, values, None);
        }
    }

    /// Whether every bar is reached.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.rows.iter().all(|(row, _)| row.holds != Some(false))
    }

    /// Writes the rows as JSON, and makes the folder when it is missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let rows: Vec<&Row> = self.rows.iter().map(|(row, _)| row).collect();
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["case", "subject", "metric", "unit", "median", "least", "most", "ratio", "bar", "holds"];
        let mut table = Table::new(&head);
        for (row, spread) in &self.rows {
            let (least, most) = spread.map_or_else(Default::default, |(a, b)| (number(a), number(b)));
            table.row([
                row.case.clone(),
                row.subject.clone(),
                row.metric.clone(),
                row.unit.clone(),
                number(row.value),
                least,
                most,
                row.peer_ratio.map(number).unwrap_or_default(),
                row.bar.map(|bar| bar.to_string()).unwrap_or_default(),
                row.holds.map(|holds| if holds { "yes" } else { "NO" }.to_owned()).unwrap_or_default(),
            ]);
        }
        table.fmt(f)
    }
}

/// The middle of the values; of an even number of them, the mean of the two in the middle.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len().is_multiple_of(2) {
        let lower = *sorted.get(sorted.len() / 2 - 1)?;
        return Some(f64::midpoint(lower, upper));
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 6.0]), Some(5.0));
    }

    #[test]
    fn a_ratio_is_that_of_the_rounds_not_of_the_medians() {
        let mut rows = Rows::default();
        let (ours, theirs) = ([10.0, 40.0, 30.0], [1.0, 20.0, 10.0]);
        rows.add("case", "ours", "rate", "1/s", &ours, None);
        rows.compare(&ours, &theirs, Bar::AtLeast(4.0));
        let (row, spread) = &rows.rows[0];
        assert_eq!((row.value, row.peer_ratio, *spread), (30.0, Some(3.0), Some((10.0, 40.0))));
        assert_eq!(row.holds, Some(false));
        assert!(!rows.hold());
    }

    #[test]
    fn noise_is_forgiven_and_equal_is_not_less() {
        let about = Bar::AtMostAbout(0.96, 0.03);
        assert!(about.holds(0.985) && !about.holds(0.995) && !Bar::Below(1.0).holds(1.0));
        assert_eq!(
            (about.to_string(), Bar::Below(1.0).to_string()),
            ("<= 0.96 (+ 0.03)".into(), "< 1".into())
        );
    }

    #[test]
    fn the_first_subject_is_compared_with_each_peer_that_has_a_bar() {
        let mut rows = Rows::default();
        let subjects: [(&str, &[f64]); 3] = [("ours", &[4.0]), ("a", &[8.0]), ("b", &[2.0])];
        let bars = [("a", Bar::Below(1.0)), ("b", Bar::Below(1.0)), ("not here", Bar::Below(1.0))];
        rows.add_compared(("case", "time", "ns"), &subjects, &bars);
        let found: Vec<_> = rows.rows.iter().map(|(row, _)| (row.metric.as_str(), row.peer_ratio)).collect();
        let wanted =
            [("time, against a", Some(0.5)), ("time, against b", Some(2.0)), ("time", None), ("time", None)];
        assert_eq!(found, wanted);
    }

    #[test]
    fn programs_find_the_fields_they_look_for() {
        let mut rows = Rows::default();
        rows.add("idle", "chatd", "memory", "bytes", &[1_000.0], Some(Bar::AtMost(2_048.0)));
        rows.add("idle", "chatd", "nothing", "bytes", &[], None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bench/x.json");
        rows.write(&file).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let wanted = serde_json::json!([{
            "case": "idle", "subject": "chatd", "metric": "memory", "unit": "bytes", "value": 1000.0,
            "peer_ratio": null, "bar": "<= 2048", "holds": true,
        }]);
        assert_eq!(read, wanted);
        assert!(rows.to_string().contains("yes") && rows.hold());
    }
}
