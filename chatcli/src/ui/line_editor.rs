//! The input line: a text, a cursor between its characters, and what was entered before.

use std::collections::VecDeque;

use schema::limits::TEXT_BYTES_MAX;
use unicode_segmentation::UnicodeSegmentation as _;

use super::safe_text::{cell_width, safe_line};

/// Lines that are remembered.
const HISTORY_MAX: usize = 500;

/// A line being edited.
#[derive(Debug, Default)]
pub(crate) struct LineEditor {
    text: String,
    /// A byte index between two characters as people count them.
    cursor: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown, counted from the newest, and what was being written before.
    shown: Option<(usize, String)>,
}

impl LineEditor {
    /// What has been written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces what has been written.
    pub(crate) fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    /// Inserts a text before the cursor. Control characters other than line feed and tab are left out, and so is what is beyond the longest text.
    pub(crate) fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        for c in text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')) {
            if self.text.len() + c.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
        self.snap();
    }

    /// What was inserted may have joined its neighbours: the cursor stays between characters.
    fn snap(&mut self) {
        while self.cursor < self.text.len()
            && !self.text.grapheme_indices(true).any(|(at, _)| at == self.cursor)
        {
            self.cursor = self.ceil(self.cursor + 1);
        }
    }

    fn ceil(&self, at: usize) -> usize {
        (at..=self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(self.text.len())
    }

    /// What stands before the cursor.
    pub(crate) fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    fn one_left(&self) -> usize {
        self.before().graphemes(true).next_back().map_or(self.cursor, |last| self.cursor - last.len())
    }

    fn one_right(&self) -> usize {
        self.after().graphemes(true).next().map_or(self.cursor, |first| self.cursor + first.len())
    }

    fn remove(&mut self, from: usize, to: usize) {
        if from < to && to <= self.text.len() {
            self.text.replace_range(from..to, "");
            self.cursor = from;
            self.snap();
        }
    }

    /// Puts `text` in the place of what stands from `start` to the cursor.
    pub(crate) fn replace_before(&mut self, start: usize, text: &str) {
        self.remove(start, self.cursor);
        self.insert(text);
    }

    /// One character to the left.
    pub(crate) fn left(&mut self) {
        self.cursor = self.one_left();
    }

    /// One character to the right.
    pub(crate) fn right(&mut self) {
        self.cursor = self.one_right();
    }

    /// To the beginning.
    pub(crate) fn home(&mut self) {
        self.cursor = 0;
    }

    /// To the end.
    pub(crate) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Removes the character before the cursor.
    pub(crate) fn backspace(&mut self) {
        self.remove(self.one_left(), self.cursor);
    }

    /// Removes the character behind the cursor.
    pub(crate) fn delete(&mut self) {
        self.remove(self.cursor, self.one_right());
    }

    /// Removes everything before the cursor.
    pub(crate) fn delete_to_start(&mut self) {
        self.remove(0, self.cursor);
    }

    /// Removes everything behind the cursor.
    pub(crate) fn delete_to_end(&mut self) {
        self.text.truncate(self.cursor);
    }

    /// Removes the word before the cursor, and the blanks behind it.
    pub(crate) fn delete_word(&mut self) {
        let word = self.before().trim_end();
        let from = word.char_indices().rev().find(|(_, c)| c.is_whitespace());
        let from = from.map_or(0, |(at, c)| at + c.len_utf8());
        self.remove(from, self.cursor);
    }

    /// Takes what has been written, and remembers it.
    pub(crate) fn submit(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        (self.cursor, self.shown) = (0, None);
        if !text.trim().is_empty() && self.history.back() != Some(&text) {
            self.history.push_back(text.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.pop_front();
            }
        }
        text
    }

    /// Shows the line that was entered before the one that is shown.
    pub(crate) fn earlier(&mut self) {
        let at = self.shown.as_ref().map_or(0, |(at, _)| at + 1);
        let Some(text) = self.history.iter().rev().nth(at).cloned() else { return };
        let draft = self.shown.take().map_or_else(|| std::mem::take(&mut self.text), |(_, draft)| draft);
        self.shown = Some((at, draft));
        self.set(text);
    }

    /// Shows the line that was entered after the one that is shown, at last what was being written.
    pub(crate) fn later(&mut self) {
        let Some((at, draft)) = self.shown.take() else { return };
        let Some(at) = at.checked_sub(1) else { return self.set(draft) };
        let text = self.history.iter().rev().nth(at).cloned().unwrap_or_default();
        self.shown = Some((at, draft));
        self.set(text);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What of the line is shown in `columns`, and in which of them the cursor stands.
    pub(crate) fn view(&self, columns: usize) -> (String, usize) {
        let before = safe_line(self.before());
        // The cursor needs a place of its own behind the last character.
        let room = columns.saturating_sub(1);
        let mut start = before.len();
        let mut used = 0;
        for (at, grapheme) in before.grapheme_indices(true).rev() {
            if used + cell_width(grapheme) > room {
                break;
            }
            used += cell_width(grapheme);
            start = at;
        }
        let mut shown = before.get(start..).unwrap_or_default().to_owned();
        let cursor = used;
        for grapheme in safe_line(self.after()).graphemes(true) {
            used += cell_width(grapheme);
            if used > columns {
                break;
            }
            shown.push_str(grapheme);
        }
        (shown, cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn editor(text: &str) -> LineEditor {
        let mut editor = LineEditor::default();
        editor.insert(text);
        editor
    }

    #[test]
    fn characters_are_what_people_count() {
        let mut editor = editor("ae\u{301}👩\u{200d}🚀漢");
        editor.backspace();
        assert_eq!(editor.text(), "ae\u{301}👩\u{200d}🚀");
        editor.backspace();
        assert_eq!(editor.text(), "ae\u{301}");
        editor.left();
        editor.insert("x");
        assert_eq!(editor.text(), "axe\u{301}");
        editor.delete();
        assert_eq!(editor.text(), "ax");
    }

    #[test]
    fn words_and_line_ends_can_be_removed() {
        let mut editor = editor("one two  three ");
        editor.delete_word();
        assert_eq!(editor.text(), "one two  ");
        editor.delete_word();
        assert_eq!(editor.text(), "one ");
        editor.insert("more");
        editor.home();
        editor.right();
        editor.delete_to_end();
        assert_eq!(editor.text(), "o");
        editor.delete_to_start();
        assert_eq!(editor.text(), "");
        editor.delete_word();
        editor.backspace();
        editor.delete();
    }

    #[test]
    fn earlier_lines_come_back_and_the_draft_is_kept() {
        let mut editor = editor("first");
        editor.submit();
        editor.insert("second");
        assert_eq!(editor.submit(), "second");
        editor.insert("draft");
        editor.earlier();
        assert_eq!(editor.text(), "second");
        editor.earlier();
        editor.earlier();
        assert_eq!(editor.text(), "first");
        editor.later();
        assert_eq!(editor.text(), "second");
        editor.later();
        assert_eq!(editor.text(), "draft");
        editor.later();
        assert_eq!(editor.text(), "draft");
    }

    #[test]
    fn a_long_line_scrolls_with_the_cursor() {
        let mut editor = editor("abcdefghij");
        assert_eq!(editor.view(6), ("fghij".into(), 5));
        editor.home();
        assert_eq!(editor.view(6), ("abcdef".into(), 0));
        editor.right();
        editor.right();
        assert_eq!(editor.view(20), ("abcdefghij".into(), 2));
        assert_eq!(LineEditor::default().view(0), (String::new(), 0));
    }

    #[test]
    fn pasted_lines_stay_one_message_and_what_is_not_text_is_left_out() {
        let editor = editor("a\r\nb\u{1b}[0m\rc");
        assert_eq!(editor.text(), "a\nb[0m\nc");
        assert_eq!(editor.view(20).0, "a⏎b[0m⏎c");
    }

    #[test]
    fn a_text_that_is_too_long_is_not_taken() {
        let editor = editor(&"x".repeat(TEXT_BYTES_MAX + 10));
        assert_eq!(editor.text().len(), TEXT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn no_keys_break_the_line(text: String, keys in prop::collection::vec(0_u8..9, 0..40), columns in 0_usize..40) {
            let mut editor = editor(&text);
            for key in keys {
                match key {
                    0 => editor.left(),
                    1 => editor.right(),
                    2 => editor.backspace(),
                    3 => editor.delete(),
                    4 => editor.delete_word(),
                    5 => editor.insert("é"),
                    6 => editor.insert("\u{301}"),
                    7 => editor.earlier(),
                    _ => drop(editor.submit()),
                }
                prop_assert!(editor.text.is_char_boundary(editor.cursor));
                let (shown, cursor) = editor.view(columns);
                prop_assert!(super::super::safe_text::width(&shown) <= columns.max(1));
                prop_assert!(cursor <= columns);
            }
        }
    }
}
