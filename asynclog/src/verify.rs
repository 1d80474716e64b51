//! Proves of log files that nothing is missing: `produced = written + dropped`, record by record.
//!
//! What is read: the number of each record (` #lane.number` before ` | `), the lines that tell of dropped records, and the lines that begin and end the parts of a
//! file and a whole run. A run is one life of a log, a part what it wrote into one file without a break.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use crc32fast::Hasher;

use crate::json;
use crate::line::OWN_TARGET;
use crate::ranges::Ranges;
use crate::seal::{CLOSED, ENDED, OPENED};

/// So many findings are kept; a file that is no log has one per line.
const FINDINGS_MAX: usize = 100;

/// Reads the files of one or more runs, oldest first, and collects what does not add up.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("a.log");
/// # let (log, guard) = asynclog::Builder::new().file(&path).build()?;
/// # log::Log::log(&log, &log::Record::builder().args(format_args!("x")).build());
/// # drop(guard);
/// let mut verifier = asynclog::Verifier::default();
/// verifier.read("a.log", std::io::BufReader::new(std::fs::File::open(path)?))?;
/// let report = verifier.finish();
/// assert!(report.is_proven());
/// assert_eq!(report.runs[0].written, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Verifier {
    runs: BTreeMap<String, Run>,
    order: Vec<String>,
    findings: Vec<Finding>,
    unlisted: u64,
}

/// What [`Verifier::finish`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Each run of a log, in the order of its first file.
    pub runs: Vec<RunReport>,
    /// What does not add up; at most 100.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub findings_unlisted: u64,
}

/// The sums of one run.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// Its name.
    pub run: String,
    /// Records found.
    pub written: u64,
    /// Records of which lines tell that they were dropped.
    pub dropped: u64,
    /// The threads that logged.
    pub threads: u64,
    /// Its last line is there, and its first. When it is not, the run was killed, goes on, or older files of it are deleted; then what is there
    /// is proven to have no gap.
    pub whole: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Where: the file's name and the line, or the run.
    pub place: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl VerifyReport {
    /// Nothing is missing, nothing is twice, no checksum is wrong.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.findings.is_empty() && !self.runs.is_empty()
    }
}

#[derive(Debug, Default)]
struct Run {
    lanes: BTreeMap<u32, Ranges>,
    written: u64,
    dropped: u64,
    first_part: u64,
    last_part: u64,
    /// Produced, written and dropped, as its last line says.
    sums: Option<[u64; 3]>,
}

/// The part that is being read.
struct Part {
    run: String,
    number: u64,
    lines: u64,
    bytes: u64,
    crc: Hasher,
    /// A line that is none was met, which is right only at its end.
    torn: bool,
}

/// A line of the log about itself.
enum Own<'a> {
    Opened { run: &'a str, part: u64 },
    Closed { run: &'a str, part: u64, lines: u64, bytes: u64, crc: u32 },
    Ended { run: &'a str, sums: [u64; 3] },
    Dropped { total: u64, ranges: Vec<(u32, u64, u64)> },
}

impl Verifier {
    /// Where a file belongs among others, by its first line: places sort by age, whatever the names of the files have become. `None` when it begins with something else.
    ///
    /// # Errors
    ///
    /// Those of the reader.
    pub fn place(mut file: impl BufRead) -> io::Result<Option<(String, u64)>> {
        let mut line = Vec::new();
        file.read_until(b'\n', &mut line)?;
        Ok(Line::read(&line).as_ref().and_then(own).and_then(|own| match own {
            // The name of a run begins with its time.
            Own::Opened { run, part } => Some((run.to_owned(), part)),
            _ => None,
        }))
    }

    /// Reads one file.
    ///
    /// # Errors
    ///
    /// Those of the reader. What is wrong in the file is no error but a finding.
    pub fn read(&mut self, name: &str, mut file: impl BufRead) -> io::Result<()> {
        let mut part: Option<Part> = None;
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let place = Place { name, line: number };
            // A crash tears the last line before the next start; a log that starts again ends it and begins a part.
            if line.last() != Some(&b'\n') {
                continue;
            }
            self.line(&place, &line, &mut part);
        }
        Ok(())
    }

    fn line(&mut self, place: &Place<'_>, line: &[u8], part: &mut Option<Part>) {
        let Some(read) = Line::read(line) else {
            return self.torn(place, line, part);
        };
        match own(&read) {
            Some(Own::Opened { run, part: number }) => self.open(place, run, number, part),
            Some(Own::Closed { run, part: number, lines, bytes, crc }) => {
                self.close(place, (run, number, lines, bytes, crc), part.take());
            }
            own => {
                let Some(current) = part else {
                    return self.find(
                        place,
                        "a line outside any part: written by something else, or its first lines are missing",
                    );
                };
                current.add(line);
                if std::mem::take(&mut current.torn) {
                    self.find(place, "half a line stands before this one");
                }
                let run = self.runs.entry(current.run.clone()).or_default();
                let problem = match own {
                    Some(Own::Dropped { total, ranges }) => run.drop_ranges(total, &ranges),
                    Some(Own::Ended { run: named, sums }) if named == current.run => {
                        run.sums = Some(sums);
                        None
                    }
                    Some(_) => Some("a line of another run".into()),
                    None => run.record(&read),
                };
                if let Some(problem) = problem {
                    self.find(place, &problem);
                }
            }
        }
    }

    /// Half a line is what a crash leaves at the end of a part; the check of what follows shows whether it was that.
    fn torn(&mut self, place: &Place<'_>, line: &[u8], part: &mut Option<Part>) {
        match part {
            Some(current) if !current.torn => {
                current.add(line);
                current.torn = true;
            }
            _ => self.find(place, "not a line of a log"),
        }
    }

    fn open(&mut self, place: &Place<'_>, run: &str, number: u64, part: &mut Option<Part>) {
        if let Some(open) = part.take()
            && open.run == run
        {
            self.find(place, &format!("part {} has no end, although its run went on", open.number));
        }
        if !self.runs.contains_key(run) {
            self.order.push(run.to_owned());
        }
        let known = self.runs.entry(run.to_owned()).or_default();
        let expected = known.last_part + 1;
        if known.first_part == 0 {
            known.first_part = number;
        } else if number != expected {
            self.find(place, &format!("part {number} of run {run}, where part {expected} should follow: a file is missing, or the order is not by age"));
        }
        if let Some(known) = self.runs.get_mut(run) {
            known.last_part = number;
        }
        *part =
            Some(Part { run: run.to_owned(), number, lines: 0, bytes: 0, crc: Hasher::new(), torn: false });
    }

    fn close(&mut self, place: &Place<'_>, said: (&str, u64, u64, u64, u32), part: Option<Part>) {
        let (run, number, lines, bytes, crc) = said;
        let Some(part) = part else { return self.find(place, "the end of a part that has no beginning") };
        if (part.run.as_str(), part.number) != (run, number) {
            self.find(place, "the end of another part");
        } else if (part.lines, part.bytes, part.crc.finalize()) != (lines, bytes, crc) {
            self.find(place, &format!("part {number} of run {run} is not as it was written: {lines} lines, {bytes} bytes and another checksum are expected, {} lines and {} bytes are there", part.lines, part.bytes));
        }
    }

    fn find(&mut self, place: &Place<'_>, what: &str) {
        self.add(format!("{}:{}", place.name, place.line), what.to_owned());
    }

    fn add(&mut self, place: String, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place, what });
        } else {
            self.unlisted += 1;
        }
    }

    /// Checks the runs as wholes.
    #[must_use]
    pub fn finish(mut self) -> VerifyReport {
        let mut runs = Vec::new();
        for name in std::mem::take(&mut self.order) {
            let Some(run) = self.runs.remove(&name) else { continue };
            for problem in run.problems() {
                self.add(format!("run {name}"), problem);
            }
            runs.push(RunReport {
                whole: run.sums.is_some() && run.first_part == 1,
                written: run.written,
                dropped: run.dropped,
                threads: run.lanes.len() as u64,
                run: name,
            });
        }
        VerifyReport { runs, findings: self.findings, findings_unlisted: self.unlisted }
    }
}

struct Place<'a> {
    name: &'a str,
    line: u64,
}

impl Part {
    fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        self.bytes += line.len() as u64;
        self.crc.update(line);
    }
}

impl Run {
    fn record(&mut self, line: &Line<'_>) -> Option<String> {
        let Some((lane, number)) = line.id else {
            // What the log says of itself has no number.
            return (!line.is_own()).then(|| "a record without a number".into());
        };
        self.written += 1;
        match self.lanes.entry(lane).or_default().add(number, number) {
            true => None,
            false => Some(format!("record #{lane}.{number} is there twice, or was told to be dropped")),
        }
    }

    fn drop_ranges(&mut self, total: u64, ranges: &[(u32, u64, u64)]) -> Option<String> {
        let mut sum = 0_u64;
        for (lane, first, last) in ranges {
            sum = sum.saturating_add((last - first).saturating_add(1));
            if !self.lanes.entry(*lane).or_default().add(*first, *last) {
                return Some(format!(
                    "records #{lane}.{first}-{last} are told to be dropped, and some of them are there or told twice"
                ));
            }
        }
        self.dropped = self.dropped.saturating_add(sum);
        (sum != total).then(|| format!("{total} records are told to be dropped, but {sum} are named"))
    }

    fn problems(&self) -> Vec<String> {
        let from_the_beginning = self.first_part == 1;
        let mut problems = Vec::new();
        for (lane, numbers) in &self.lanes {
            for (first, last) in numbers.gaps(from_the_beginning) {
                problems.push(format!("records #{lane}.{first}-{last} are missing"));
            }
        }
        if let (Some([produced, written, dropped]), true) = (self.sums, from_the_beginning)
            && (produced, written, dropped) != (self.written + self.dropped, self.written, self.dropped)
        {
            problems.push(format!(
                "its end says {produced} produced = {written} written + {dropped} dropped; found are {} written and {} dropped",
                self.written, self.dropped
            ));
        }
        problems
    }
}

/// What is read of a line of ours, in either format.
struct Line<'a> {
    target: &'a str,
    /// None for what the log says of itself.
    id: Option<(u32, u64)>,
    message: &'a str,
}

impl<'a> Line<'a> {
    /// None if it is no line of ours.
    fn read(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        if text.starts_with('{') {
            let json::JsonLine { target, number, message } = json::read(text)?;
            return Some(Self { target, id: number.and_then(numbers), message });
        }
        let (head, message) = text.split_once(" | ")?;
        let begins_as_ours =
            head.as_bytes().get(..11).is_some_and(|date| date.ends_with(b"T") && date.get(4) == Some(&b'-'));
        let fields: Vec<&str> = head.split(' ').collect();
        let target = *fields.get(3).filter(|_| begins_as_ours && fields.len() >= 5)?;
        Some(Self { target, id: fields.last().and_then(|field| record_id(field)), message })
    }

    fn is_own(&self) -> bool {
        // A record with this target has a number, as all records do, and is none of ours.
        self.target == OWN_TARGET && self.id.is_none()
    }
}

/// Reads `3.1042`.
fn numbers(text: &str) -> Option<(u32, u64)> {
    let (lane, number) = text.split_once('.')?;
    Some((lane.parse().ok()?, number.parse().ok().filter(|number| *number > 0)?))
}

/// Reads `#3.1042`.
fn record_id(text: &str) -> Option<(u32, u64)> {
    numbers(text.strip_prefix('#')?)
}

/// Reads `#3.1042` or `#3.1042-1050`.
fn record_range(text: &str) -> Option<(u32, u64, u64)> {
    match text.split_once('-') {
        None => record_id(text).map(|(lane, number)| (lane, number, number)),
        Some((first, last)) => {
            let (lane, first) = record_id(first)?;
            Some((lane, first, last.parse().ok().filter(|last| *last >= first)?))
        }
    }
}

fn own<'a>(line: &Line<'a>) -> Option<Own<'a>> {
    if !line.is_own() {
        return None;
    }
    let message = line.message;
    if let Some((total, rest)) = message.split_once(" records dropped ") {
        let ranges = rest.split(' ').filter_map(record_range).collect();
        return Some(Own::Dropped { total: total.parse().ok()?, ranges });
    }
    let words: Vec<&str> = message.split(' ').collect();
    if message.starts_with(OPENED) {
        let [_, _, run, "part", part] = *words.as_slice() else { return None };
        return Some(Own::Opened { run, part: part.parse().ok()? });
    }
    if message.starts_with(CLOSED) {
        let [_, _, run, "part", part, "lines", lines, "bytes", bytes, "crc32", crc] = *words.as_slice()
        else {
            return None;
        };
        let crc = u32::from_str_radix(crc, 16).ok()?;
        return Some(Own::Closed {
            run,
            part: part.parse().ok()?,
            lines: lines.parse().ok()?,
            bytes: bytes.parse().ok()?,
            crc,
        });
    }
    if message.starts_with(ENDED) {
        let [_, _, run, "produced", produced, "written", written, "dropped", dropped] = *words.as_slice()
        else {
            return None;
        };
        return Some(Own::Ended {
            run,
            sums: [produced.parse().ok()?, written.parse().ok()?, dropped.parse().ok()?],
        });
    }
    None
}
