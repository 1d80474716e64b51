//! Draws the curves of a run as SVG.

use std::path::{Path, PathBuf};

use plotters::prelude::*;
use serde::Deserialize;

/// What a plot needs of a row.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    case: String,
    subject: String,
    metric: String,
    value: f64,
}

/// A plot: what is drawn from which rows, and under which words.
#[derive(Clone, Copy, Debug)]
struct Plot {
    file: &'static str,
    title: &'static str,
    /// Of the cases, `curve NAME at X`.
    curve: &'static str,
    /// Of the rows; each is a line of its own for each subject.
    metrics: &'static [&'static str],
    x: Axis,
    y: Axis,
}

/// An axis. With a base it is logarithmic, and goes from a power of the base to another.
#[derive(Clone, Copy, Debug)]
struct Axis {
    words: &'static str,
    base: Option<f64>,
}

const fn linear(words: &'static str) -> Axis {
    Axis { words, base: None }
}

const fn powers(base: f64, words: &'static str) -> Axis {
    Axis { words, base: Some(base) }
}

const PLOTS: [Plot; 4] = [
    Plot {
        file: "throughput.svg",
        title: "Durable messages per second, 200 users in pairs",
        curve: "window",
        metrics: &["acknowledged messages"],
        x: powers(2.0, "messages of each user in flight"),
        y: linear("messages per second"),
    },
    Plot {
        file: "latency.svg",
        title: "Latency against offered load, up to overload",
        curve: "load",
        metrics: &["send to ok, p50", "send to ok, p99"],
        x: linear("messages offered per second"),
        y: powers(10.0, "milliseconds from send to ok"),
    },
    Plot {
        file: "memory.svg",
        title: "Resident memory of chatd, idle users",
        curve: "connections",
        metrics: &["resident"],
        x: linear("logged-in users"),
        y: linear("MiB"),
    },
    Plot {
        file: "group.svg",
        title: "CPU per delivery against group size (server and database)",
        curve: "group",
        metrics: &["CPU per delivery"],
        x: powers(10.0, "members"),
        y: linear("microseconds"),
    },
];

const SIZE: (u32, u32) = (760, 440);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

/// A line of a plot.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws each plot that the rows have points for into the folder; the files.
///
/// # Errors
/// What could not be drawn or written, in words.
pub fn draw(rows: &[Row], folder: &Path) -> Result<Vec<PathBuf>, String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("could not make {}: {e}", folder.display()))?;
    let mut files = Vec::new();
    for plot in PLOTS {
        let lines = lines(rows, &plot);
        if lines.is_empty() {
            continue;
        }
        let file = folder.join(plot.file);
        draw_one(&plot, &lines, &file).map_err(|e| format!("could not draw {}: {e}", file.display()))?;
        files.push(file);
    }
    Ok(files)
}

/// The points of a plot, by subject and metric.
fn lines(rows: &[Row], plot: &Plot) -> Vec<Line> {
    let prefix = format!("curve {} at ", plot.curve);
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let at = row.case.strip_prefix(&prefix).and_then(|x| x.parse::<f64>().ok());
        let (Some(x), Some(metric)) = (at, plot.metrics.iter().find(|metric| **metric == row.metric)) else {
            continue;
        };
        let name = match plot.metrics {
            [_] => row.subject.clone(),
            _ => format!("{}: {metric}", row.subject),
        };
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((x, row.value)),
            None => lines.push(Line { name, points: vec![(x, row.value)] }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

impl Axis {
    /// Where a value is on the axis.
    fn place(self, value: f64) -> f64 {
        self.base.map_or(value, |base| value.max(f64::MIN_POSITIVE).log(base))
    }

    fn value(self, place: f64) -> f64 {
        self.base.map_or(place, |base| base.powf(place))
    }

    /// From where to where, and with how many labels.
    fn range(self, places: impl Iterator<Item = f64>) -> (f64, f64, usize) {
        let (least, most) = places.fold((f64::MAX, f64::MIN), |(a, b), place| (a.min(place), b.max(place)));
        if self.base.is_none() {
            return (0.0, (most * 1.08).max(f64::MIN_POSITIVE), 8);
        }
        let (least, most) = (least.floor(), most.ceil().max(least.floor() + 1.0));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few powers")]
        let labels = (most - least) as usize + 1;
        (least, most, labels)
    }
}

fn draw_one(plot: &Plot, lines: &[Line], file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let Plot { x, y, .. } = *plot;
    let points = || lines.iter().flat_map(|line| &line.points);
    let (x_least, x_most, x_labels) = x.range(points().map(|point| x.place(point.0)));
    let (y_least, y_most, y_labels) = y.range(points().map(|point| y.place(point.1)));
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(76)
        .build_cartesian_2d(x_least..x_most, y_least..y_most)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(x_labels)
        .y_labels(y_labels)
        .x_label_formatter(&|place| crate::number(x.value(*place)))
        .y_label_formatter(&|place| crate::number(y.value(*place)))
        .x_desc(x.words)
        .y_desc(y.words)
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle().copied()) {
        let points: Vec<_> = line.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, subject: &str, metric: &str, value: f64) -> Row {
        Row { case: case.into(), subject: subject.into(), metric: metric.into(), value }
    }

    #[test]
    fn points_are_found_by_their_case_and_drawn_in_order() {
        let rows = [
            row("curve window at 16", "embedded", "acknowledged messages", 3.0),
            row("curve window at 1", "embedded", "acknowledged messages", 1.0),
            row("curve window at 1", "MariaDB", "acknowledged messages", 0.5),
            row("W1", "embedded", "acknowledged messages", 9.0),
        ];
        let found = lines(&rows, &PLOTS[0]);
        assert_eq!(found[0], Line { name: "embedded".into(), points: vec![(1.0, 1.0), (16.0, 3.0)] });
        assert_eq!(found[1].points, [(1.0, 0.5)]);
        let folder = tempfile::tempdir().unwrap();
        let files = draw(&rows, folder.path()).unwrap();
        assert_eq!(files, [folder.path().join("throughput.svg")]);
        let svg = std::fs::read_to_string(&files[0]).unwrap();
        assert!(svg.contains("embedded") && svg.contains("polyline"), "{svg}");
    }

    #[test]
    fn a_logarithmic_axis_goes_from_power_to_power() {
        let axis = powers(10.0, "");
        let places = [2.0, 300.0].map(|value| axis.place(value));
        assert_eq!(axis.range(places.into_iter()), (0.0, 3.0, 4));
        assert!((axis.value(2.0) - 100.0).abs() < 1e-9);
    }
}
