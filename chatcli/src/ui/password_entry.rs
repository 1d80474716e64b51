//! A new password, asked for in the input line and never shown: the old one, the new one, the new one again.

use schema::text::is_password;

use super::line_editor::LineEditor;
use crate::secret::Secret;

/// What has been entered so far.
#[derive(Debug, Default)]
pub(crate) struct PasswordEntry {
    pub(crate) editor: LineEditor,
    old: Option<Secret>,
    new: Option<Secret>,
}

/// What follows from an Enter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The next line is to be entered.
    More,
    /// It is given up: why.
    Wrong(&'static str),
    /// The old and the new password.
    All(Secret, Secret),
}

impl PasswordEntry {
    /// What is asked for now.
    pub(crate) fn prompt(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "Old password (not shown): ",
            (Some(_), None) => "New password (not shown): ",
            (Some(_), Some(_)) => "New password again (not shown): ",
        }
    }

    /// Enter was pressed.
    pub(crate) fn enter(&mut self) -> Entered {
        let entered = Secret::new(self.editor.text());
        // The editor forgets it: nothing of it stays in a history.
        self.editor.clear();
        if !is_password(entered.reveal()) {
            return Entered::Wrong("a password has 8 to 128 bytes");
        }
        match (self.old.clone(), &self.new) {
            (None, _) => self.old = Some(entered),
            (Some(_), None) => self.new = Some(entered),
            (Some(old), Some(new)) if *new == entered => return Entered::All(old, entered),
            (Some(_), Some(_)) => return Entered::Wrong("the two differ: the password is as it was"),
        }
        Entered::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(entry: &mut PasswordEntry, text: &str) -> Entered {
        entry.editor.insert(text);
        entry.enter()
    }

    #[test]
    fn the_new_password_is_entered_twice() {
        let mut entry = PasswordEntry::default();
        assert_eq!(enter(&mut entry, "correct horse"), Entered::More);
        assert_eq!(enter(&mut entry, "battery staple"), Entered::More);
        assert!(entry.prompt().contains("again"));
        let all = Entered::All(Secret::new("correct horse"), Secret::new("battery staple"));
        assert_eq!(enter(&mut entry, "battery staple"), all);
    }

    #[test]
    fn what_cannot_be_a_password_and_what_differs_ends_it() {
        let mut entry = PasswordEntry::default();
        assert!(matches!(enter(&mut entry, "short"), Entered::Wrong(_)));
        let mut entry = PasswordEntry::default();
        for text in ["correct horse", "battery staple"] {
            assert_eq!(enter(&mut entry, text), Entered::More);
        }
        assert!(matches!(enter(&mut entry, "battery stable"), Entered::Wrong(why) if why.contains("differ")));
    }
}
