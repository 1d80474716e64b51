//! What one run leaves to the next: its users, and which of their messages were answered.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gate::{Account, Gate};

/// A sender's messages, numbered from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letters {
    answered: Vec<bool>,
    unanswered: u64,
}

impl Letters {
    /// Notes a message as sent; its number.
    pub(crate) fn send(&mut self) -> u64 {
        self.answered.push(false);
        self.unanswered += 1;
        self.sent()
    }

    pub(crate) fn sent(&self) -> u64 {
        u64::try_from(self.answered.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// The server has accepted a message. Whether this is the first that is heard of it.
    pub(crate) fn answer(&mut self, number: u64) -> bool {
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.answered.get_mut(index)) {
            Some(answered) if !*answered => {
                *answered = true;
                self.unanswered -= 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn is_answered(&self, number: u64) -> bool {
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.answered.get(index)).copied().unwrap_or(false)
    }
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    run_id: String,
    users: Vec<(u64, String)>,
    letters: Vec<Letters>,
}

impl State {
    pub(crate) fn of(gate: &Gate, letters: impl Iterator<Item = Letters>) -> Self {
        let user = |account: &Account| (account.id, String::from_utf8_lossy(&account.token).into_owned());
        Self {
            run_id: gate.run_id.clone(),
            users: gate.accounts.iter().map(user).collect(),
            letters: letters.collect(),
        }
    }

    pub(crate) fn write(&self, file: &Path) -> std::io::Result<()> {
        std::fs::write(file, serde_json::to_vec(self)?)
    }

    pub(crate) fn read(file: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }

    /// Gives the users back, and returns their messages.
    pub(crate) fn restore(self, gate: &mut Gate) -> Vec<Letters> {
        gate.run_id = self.run_id;
        gate.accounts = self
            .users
            .into_iter()
            .map(|(id, token)| Account { id, conn: None, token: token.into_bytes().into() })
            .collect();
        self.letters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_only_for_what_was_sent() {
        let mut letters = Letters::default();
        assert_eq!([letters.send(), letters.send()], [1, 2]);
        assert!(letters.answer(2) && !letters.answer(2) && !letters.answer(3) && !letters.answer(0));
        assert_eq!((letters.sent(), letters.unanswered()), (2, 1));
        assert!(letters.is_answered(2) && !letters.is_answered(1));
    }
}
