//! The seal of a file: a line at its beginning and one at its end, by which `verify` knows that nothing between them is missing or changed.

use crc32fast::Hasher;
use log::Level;

use crate::printer::Printer;

/// How the first line of a file's part begins, behind ` | `.
pub(crate) const OPENED: &str = "opened: run ";
/// How the last one begins.
pub(crate) const CLOSED: &str = "closed: run ";
/// How the last line of a whole run begins.
pub(crate) const ENDED: &str = "ended: run ";

/// The seal of the file that is being written.
#[derive(Debug)]
pub(crate) struct Seal {
    /// One run of a log, from its start to its end.
    run: String,
    /// The parts begun so far, of files new or continued.
    part: u64,
    /// Its first line is written.
    begun: bool,
    lines: u64,
    bytes: u64,
    crc: Hasher,
    printer: Printer,
}

impl Seal {
    pub(crate) fn new(run: String, printer: Printer) -> Self {
        Self { run, part: 0, begun: false, lines: 0, bytes: 0, crc: Hasher::new(), printer }
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The line that must be written before any other, if it is not yet.
    pub(crate) fn opening(&mut self) -> Option<Vec<u8>> {
        if self.begun {
            return None;
        }
        let text = format!("{OPENED}{} part {}", self.run, self.part + 1);
        Some(self.line(&text))
    }

    /// The opening line is written.
    pub(crate) fn begin(&mut self) {
        self.part += 1;
        self.begun = true;
        (self.lines, self.bytes) = (0, 0);
        self.crc.reset();
    }

    /// These bytes follow in the file.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.bytes += bytes.len() as u64;
        self.crc.update(bytes);
    }

    /// The line that ends the part, if one was begun; after it a new part begins.
    pub(crate) fn closing(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.begun) {
            return None;
        }
        let crc = self.crc.clone().finalize();
        let Self { run, part, lines, bytes, .. } = self;
        let text = format!("{CLOSED}{run} part {part} lines {lines} bytes {bytes} crc32 {crc:08x}");
        Some(self.line(&text))
    }

    /// What comes next is not behind what was added: another file, or the same with something missing.
    pub(crate) fn interrupt(&mut self) {
        self.begun = false;
    }

    fn line(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.printer.notice(&mut bytes, Level::Info, text);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &[u8]) -> String {
        String::from_utf8_lossy(line).split_once(" | ").unwrap().1.to_owned()
    }

    #[test]
    fn a_part_is_closed_with_what_was_added_to_it() {
        let mut seal = Seal::new("r".into(), Printer::default());
        assert!(seal.closing().is_none());
        assert_eq!(message(&seal.opening().unwrap()), "opened: run r part 1\n");
        seal.begin();
        assert!(seal.opening().is_none());
        seal.add(b"1234");
        seal.add(b"56789");
        // The check value of CRC-32 in every catalogue of them.
        assert_eq!(
            message(&seal.closing().unwrap()),
            "closed: run r part 1 lines 0 bytes 9 crc32 cbf43926\n"
        );
        assert_eq!(message(&seal.opening().unwrap()), "opened: run r part 2\n");
    }
}
