//! The message pane: entries, what is on its way, and the program's own words, as rows from the bottom up.

use chrono::NaiveDate;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use schema::Seq;
use schema::text::name_key;

use super::chat::{Chat, Notice};
use super::command::COLUMN;
use super::mention::mentions;
use super::report;
use super::safe_text::{safe, safe_line, shorten, width, wrap};
use super::theme::Theme;
use crate::service::{ClientService, Content, Entry, Outgoing, Progress};

/// The rows of the pane.
#[derive(Debug)]
pub(crate) struct Pane {
    /// From the bottom up.
    rows: Vec<Line<'static>>,
    theme: Theme,
    columns: usize,
    /// So many rows are enough.
    enough: usize,
    /// Rows of entries that came since the pane was last drawn; not counted while it is not scrolled.
    new: usize,
}

/// The rows that are in sight.
#[derive(Debug)]
pub(crate) struct Sight {
    /// From the top down.
    pub(crate) rows: Vec<Line<'static>>,
    /// How far it is scrolled up, bounded by what there is.
    pub(crate) scroll: usize,
    /// Whether the first row of all is in sight.
    pub(crate) top_seen: bool,
    /// The last entry that there is.
    pub(crate) last: Seq,
}

impl Pane {
    /// What is in sight of the open conversation, in `height` rows of `columns`.
    pub(crate) fn sight(
        chat: &Chat,
        service: &ClientService,
        theme: Theme,
        columns: usize,
        height: usize,
    ) -> Sight {
        let enough = height.saturating_add(chat.scroll);
        let mut pane = Self { rows: Vec::new(), theme, columns: columns.max(4), enough, new: 0 };
        pane.fill(chat, service);
        // What arrives below does not move what is being read.
        let scroll = (chat.scroll + pane.new).min(pane.rows.len().saturating_sub(height));
        let top_seen = pane.rows.len() <= scroll + height;
        let mut rows: Vec<Line<'static>> = pane.rows.into_iter().skip(scroll).take(height).collect();
        rows.reverse();
        let last = chat.conversation(service).and_then(|open| open.entries().next_back());
        Sight { rows, scroll, top_seen, last: last.map_or(Seq::ZERO, |entry| entry.seq) }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.enough
    }

    fn fill(&mut self, chat: &Chat, service: &ClientService) {
        let me = service.me().map(|me| me.name.to_string()).unwrap_or_default();
        let key = name_key(&me);
        if let Some(to) = chat.open() {
            let under_way: Vec<&Outgoing> = service.on_the_way(to).collect();
            for item in under_way.into_iter().rev() {
                self.message("--:--", &me, &item.text, Some(Progress::Sending), false);
            }
        }
        let mut notices = chat.notices().rev().peekable();
        if let Some(conversation) = chat.conversation(service) {
            let mut entries = conversation.entries().rev().peekable();
            while let Some(entry) = entries.next() {
                while let Some(notice) = notices.next_if(|notice| notice.after >= entry.seq) {
                    self.notice(notice);
                }
                if self.is_full() {
                    return;
                }
                let before = self.rows.len();
                let own = service.me().is_some_and(|me| me.id == entry.from);
                self.entry(service, entry, own.then(|| conversation.progress(entry.seq)), &key);
                if chat.unread_from == Some(entry.seq) {
                    self.rule("new");
                }
                let day = self.theme.zone.show(entry.time_ms).0;
                let earlier = entries.peek().map(|earlier| self.theme.zone.show(earlier.time_ms).0);
                if earlier != Some(day) {
                    self.day(day);
                }
                if chat.scroll > 0 && entry.seq > chat.last_drawn {
                    let added = self.rows.len() - before;
                    self.new += added;
                    self.enough += added;
                }
            }
        }
        notices.for_each(|notice| self.notice(notice));
    }

    /// `key` is that of the user's own name.
    fn entry(&mut self, service: &ClientService, entry: &Entry, progress: Option<Progress>, key: &str) {
        let (_, time) = self.theme.zone.show(entry.time_ms);
        match &entry.content {
            Content::Text(text) => {
                let mentioned = progress.is_none() && mentions(text, key);
                self.message(&time, &entry.from_name, text, progress, mentioned);
            }
            Content::Event(event) => {
                let text = safe_line(&report::group_event(service, entry, event));
                let (head, room) = (width(&time) + 3, self.columns.saturating_sub(2));
                let mut texts = wrap(&text, self.columns.saturating_sub(head), room).into_iter();
                let first = format!("{time} · {}", texts.next().unwrap_or_default());
                let lines = std::iter::once(first).chain(texts.map(|text| format!("  {text}")));
                let lines: Vec<Line<'_>> = lines.map(|line| Line::styled(line, self.theme.dim())).collect();
                self.rows.extend(lines.into_iter().rev());
            }
        }
    }

    /// An own message has a progress.
    fn message(&mut self, time: &str, name: &str, text: &str, progress: Option<Progress>, mentioned: bool) {
        let style = self.theme.name(name, progress.is_some());
        let body = if mentioned { self.theme.mention() } else { Style::new() };
        let shown = shorten(&safe_line(name), (self.columns / 3).max(4));
        let head = width(time) + 1 + width(&shown) + 2;
        // Where there is no room, the rest of a message stands below its head, not beside it.
        let indent = if head * 3 <= self.columns { head } else { 2 };
        let room = self.columns.saturating_sub(indent);
        let mut texts = wrap(&safe(text), self.columns.saturating_sub(head), room).into_iter();
        let mut lines = vec![Line::from(vec![
            Span::styled(format!("{time} "), self.theme.dim()),
            Span::styled(format!("{shown}: "), style),
            Span::styled(texts.next().unwrap_or_default(), body),
        ])];
        lines.extend(texts.map(|text| Line::styled(format!("{}{text}", " ".repeat(indent)), body)));
        if let Some(progress) = progress {
            self.mark(&mut lines, progress, indent);
        }
        self.rows.extend(lines.into_iter().rev());
    }

    /// Adds how far an own message has come, behind it where there is room, else below.
    fn mark(&self, lines: &mut Vec<Line<'static>>, progress: Progress, indent: usize) {
        let mark = format!(" [{}]", progress.word());
        let used = lines.last().map_or(0, |line| line.spans.iter().map(|span| width(&span.content)).sum());
        let mark_width = width(&mark);
        let mark = Span::styled(mark, self.theme.dim());
        match lines.last_mut() {
            Some(last) if used + mark_width <= self.columns => last.push_span(mark),
            _ => lines.push(Line::from(vec![Span::raw(" ".repeat(indent.saturating_sub(1))), mark])),
        }
    }

    fn notice(&mut self, notice: &Notice) {
        let style = if notice.error { self.theme.error() } else { self.theme.dim() };
        let room = self.columns.saturating_sub(2);
        let rows = match notice.text.split_once(COLUMN) {
            Some((left, right)) => columns(&safe(left), &safe(right), room),
            None => wrap(&safe(&notice.text), room, room),
        };
        let row = |(n, row)| Line::styled(format!("{}{row}", if n == 0 { "* " } else { "  " }), style);
        let lines: Vec<Line<'_>> = rows.into_iter().enumerate().map(row).collect();
        self.rows.extend(lines.into_iter().rev());
    }

    fn day(&mut self, day: Option<NaiveDate>) {
        let text = day.map_or_else(|| "unknown day".into(), |day| day.format("%A, %-d %B %Y").to_string());
        self.rule(&text);
    }

    /// A line across the pane with a word in it.
    fn rule(&mut self, text: &str) {
        let side = self.columns.saturating_sub(width(text) + 2) / 2;
        let line = "─".repeat(side.min(20));
        self.rows.push(Line::styled(format!("{line} {text} {line}"), self.theme.dim()));
    }
}

/// Two columns as rows: the left one has a third of the room, or a row of its own where it is longer.
fn columns(left: &str, right: &str, room: usize) -> Vec<String> {
    let indent = if room >= 40 { room * 2 / 5 } else { 4 };
    let mut rows = Vec::new();
    let mut texts = wrap(right, room.saturating_sub(indent), room.saturating_sub(indent)).into_iter();
    if width(left) < indent {
        let first = texts.next().unwrap_or_default();
        rows.push(format!("{left}{}{first}", " ".repeat(indent - width(left))));
    } else {
        rows.extend(wrap(left, room, room));
    }
    rows.extend(texts.map(|text| format!("{}{text}", " ".repeat(indent))));
    rows
}
