//! The last lines of a conversation, kept for the moment when a test fails.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

/// Lines kept; older ones are forgotten.
const LINES_MAX: usize = 60;
/// Bytes shown of one line.
const LINE_BYTES_MAX: usize = 400;

/// What went over one connection lately, in both directions.
#[derive(Debug)]
pub(crate) struct Transcript {
    since: Instant,
    lines: VecDeque<String>,
    forgotten: usize,
}

impl Transcript {
    pub(crate) fn new() -> Transcript {
        Transcript { since: Instant::now(), lines: VecDeque::new(), forgotten: 0 }
    }

    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        self.push("->", bytes);
    }

    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.push("<-", bytes);
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.push("--", text.as_bytes());
    }

    fn push(&mut self, arrow: &str, bytes: &[u8]) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.forgotten += 1;
        }
        let shown = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
        let text = String::from_utf8_lossy(shown).trim_end().escape_debug().to_string().replace("\\\"", "\"");
        let rest = bytes.len() - shown.len();
        let more = if rest > 0 { format!(" … {rest} bytes more") } else { String::new() };
        self.lines.push_back(format!("{:>7} ms {arrow} {text}{more}", self.since.elapsed().as_millis()));
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forgotten > 0 {
            writeln!(f, "   ({} earlier lines)", self.forgotten)?;
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tail_is_kept_and_long_lines_are_cut() {
        let mut t = Transcript::new();
        for n in 0..LINES_MAX + 5 {
            t.sent(format!("line {n}\n").as_bytes());
        }
        t.received(&[b'x'; LINE_BYTES_MAX + 7]);
        let text = t.to_string();
        assert!(text.contains("(6 earlier lines)"), "{text}");
        assert!(!text.contains("line 5\n"), "{text}");
        assert!(text.contains("line 6\n") && text.contains("7 bytes more"), "{text}");
    }
}
