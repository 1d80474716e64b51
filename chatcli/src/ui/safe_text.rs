//! Text of others, made harmless: what a terminal would obey is shown instead, and rows are cut by the width that they have on the screen.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Marks on one character beyond which the rest is left out: the most that any script needs is about half of it.
const MARKS_MAX: usize = 8;

/// How a tab is shown.
const TAB: &str = "    ";

/// The text with nothing in it that a terminal obeys. Line feeds stay; everything else that is invisible and does something is shown as a sign of its own.
pub(crate) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push_str(TAB),
            '\u{7f}' => out.push('␡'),
            // U+2400 and what follows are pictures of the first 32 control characters.
            c if u32::from(c) < 0x20 => out.extend(char::from_u32(0x2400 + u32::from(c))),
            c if is_hidden(c) => out.push_str(&format!("<{:04X}>", u32::from(c))),
            c if c.width() == Some(0) => {
                marks += 1;
                if marks <= MARKS_MAX {
                    out.push(c);
                }
                continue;
            }
            c => out.push(c),
        }
        marks = 0;
    }
    out
}

/// Whether a character has no shape and changes how others are shown: controls, marks of direction, separators, tags.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}')
}

/// A text on one line: safe, with a sign in place of line feeds.
pub(crate) fn safe_line(text: &str) -> String {
    safe(text).replace('\n', "⏎")
}

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.graphemes(true).map(cell_width).sum()
}

/// How many columns one character, as people count them, takes.
pub(crate) fn cell_width(grapheme: &str) -> usize {
    grapheme.width()
}

/// The longest beginning of a text that takes at most `columns`.
pub(crate) fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        used += cell_width(grapheme);
        if used > columns {
            return text.get(..at).unwrap_or(text);
        }
    }
    text
}

/// A text that takes at most `columns`, with a sign where something was cut off.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    format!("{}…", cut(text, columns.saturating_sub(1)))
}

/// Cuts a safe text into rows of at most `columns`, the first of at most `first`; at blanks where there are any.
pub(crate) fn wrap(text: &str, first: usize, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for line in text.split('\n') {
        let room = if rows.is_empty() { first } else { columns };
        wrap_line(line, room.max(2), columns.max(2), &mut rows);
    }
    rows
}

fn wrap_line(line: &str, first: usize, columns: usize, rows: &mut Vec<String>) {
    let mut room = first;
    let mut row = String::new();
    let mut used = 0;
    // Where the row can be cut: behind its last blank.
    let mut blank = None;
    for grapheme in line.graphemes(true) {
        // A cluster that fits no row stands for itself no longer.
        let grapheme = if cell_width(grapheme) > first.min(columns) { "…" } else { grapheme };
        let wide = cell_width(grapheme);
        while used + wide > room && grapheme != " " {
            let rest = match blank.take() {
                Some(at) => row.split_off(at),
                // What came over from the row before may be longer than this one.
                None => row.split_off(cut(&row, room).len()),
            };
            rows.push(std::mem::replace(&mut row, rest).trim_end().to_owned());
            room = columns;
            used = width(&row);
        }
        row.push_str(grapheme);
        used += wide;
        if grapheme == " " {
            blank = Some(row.len());
        }
    }
    rows.push(row.trim_end().to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(safe("\u{1b}[31mred\u{7}\r\u{8}"), "␛[31mred␇␍␈");
        assert_eq!(safe("a\u{9b}2Jb\u{7f}"), "a<009B>2Jb␡");
        assert_eq!(safe("abc\u{202e}def\u{2066}\u{200f}"), "abc<202E>def<2066><200F>");
        assert_eq!(safe("a\tb\nc"), "a    b\nc");
        assert_eq!(safe_line("a\nb"), "a⏎b");
    }

    #[test]
    fn what_scripts_and_emoji_need_stays() {
        for text in ["e\u{301}", "नमस्ते", "👩\u{200d}🚀", "مرحبا", "ก็", "漢字"] {
            assert_eq!(safe(text), text);
        }
        let tower: String = "e".chars().chain(std::iter::repeat_n('\u{301}', 500)).collect();
        assert_eq!(safe(&tower).chars().count(), 1 + MARKS_MAX);
    }

    #[test]
    fn rows_are_cut_at_blanks_and_by_width() {
        assert_eq!(wrap("one two three", 7, 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 5, 8), ["one", "two", "three"]);
        assert_eq!(wrap("abcdefgh", 3, 5), ["abc", "defgh"]);
        assert_eq!(wrap("漢字漢字", 5, 4), ["漢字", "漢字"]);
        assert_eq!(wrap("a bcdefgh", 8, 2), ["a", "bc", "de", "fg", "h"], "also what came over");
        assert_eq!(wrap("a\n\nb", 9, 9), ["a", "", "b"]);
        assert_eq!(wrap("", 9, 9), [""]);
    }

    #[test]
    fn what_does_not_fit_is_shortened_by_width() {
        assert_eq!(shorten("bob", 3), "bob");
        assert_eq!(shorten("bobby", 4), "bob…");
        assert_eq!(shorten("漢字漢", 4), "漢…");
    }

    proptest! {
        #[test]
        fn no_text_is_wider_than_its_rows_or_moves_the_cursor(text: String, first in 2_usize..30, columns in 2_usize..30) {
            let safe = safe(&text);
            prop_assert!(!safe.chars().any(|c| c.is_control() && c != '\n'));
            for (n, row) in wrap(&safe, first, columns).iter().enumerate() {
                let room = if n == 0 { first } else { columns };
                prop_assert!(width(row) <= room, "{row:?} is wider than {room}");
            }
        }

        #[test]
        fn wrapping_loses_nothing_but_blanks(text in "[a-z漢 ]{0,80}", columns in 2_usize..30) {
            let bare = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            prop_assert_eq!(bare(&wrap(&text, columns, columns).concat()), bare(&text));
        }
    }
}
