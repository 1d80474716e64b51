//! Prints records, and what the log says of itself, in the format that was chosen.

use std::io::{self, IsTerminal};

use log::{Level, Record};

use crate::config::RECORD_BYTES;
use crate::frame::{self, Frame};
use crate::line::OWN_TARGET;
use crate::stamp::Stamps;
use crate::{caller, compose, json, line};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Lines that people read, see the [crate's page](crate#a-line).
    #[default]
    Text,
    /// An object of JSON for each record:
    /// `{"time":"2026-09-23T10:15:04.123456Z","level":"INFO","thread":"io-3","target":"chatd::session","file":"session.rs","line":142,"number":"4.1042","message":"sent","fields":{"conv":55}}`.
    ///
    /// `number` is there in sealed files, `file`, `line` and `fields` where they are known, `bytes_cut` when the message was too long. The values of [`context`](crate::context()) are
    /// strings, those of `log`'s key-values numbers and truth values where they are such.
    Json,
}

/// When level letters have a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Colours {
    /// When standard error is the target and a terminal, unless the environment has a `NO_COLOR` or its `TERM` is `dumb`.
    #[default]
    Terminal,
    /// Never.
    Never,
}

impl Colours {
    /// For a log to standard error.
    pub(crate) fn are_wanted(self) -> bool {
        self == Self::Terminal
            && io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }
}

/// The lane of a record, and how its line is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From<'a> {
    pub(crate) label: &'a str,
    /// For lines that bear a number.
    pub(crate) lane: Option<u32>,
    pub(crate) record_bytes_max: usize,
}

/// What a format needs from one line to the next.
#[derive(Debug, Default)]
pub(crate) struct Printer {
    format: Format,
    colours: bool,
    stamps: Stamps,
}

impl Printer {
    pub(crate) fn new(format: Format, colours: bool) -> Self {
        Self { format, colours, stamps: Stamps::default() }
    }

    /// Appends a record's line.
    pub(crate) fn record(&mut self, out: &mut Vec<u8>, frame: &Frame<'_>, from: From<'_>) {
        match self.format {
            Format::Text => line::push(out, &mut self.stamps, frame, from, self.colours),
            Format::Json => json::push(out, &mut self.stamps, frame, from),
        }
    }

    /// Appends a line of the log about itself, from the current thread.
    pub(crate) fn notice(&mut self, out: &mut Vec<u8>, level: Level, text: &str) {
        let mut bytes = vec![0; frame::HEAD];
        let args = format_args!("{text}");
        let record = Record::builder().level(level).target(OWN_TARGET).args(args).build();
        compose::compose(&mut bytes, &record, frame::HEAD + RECORD_BYTES, self.format);
        if let Some((frame, _)) = Frame::split(&bytes) {
            caller::with_label(|label| {
                self.record(out, &frame, From { label, lane: None, record_bytes_max: RECORD_BYTES });
            });
        }
    }

    /// A time as it stands in lines.
    pub(crate) fn time(&mut self, micros: i64) -> String {
        self.stamps.text(micros)
    }
}
