//! The form before the chat: log in or register.

use std::borrow::Cow;

use schema::text::{Name, is_password};

use super::line_editor::LineEditor;
use crate::secret::Secret;

/// Where the form is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// Log in, register or quit?
    Choice,
    Name,
    Password,
    /// The password again, for a registration.
    Again,
    /// Everything was given; the server is asked.
    Busy,
}

/// What was filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) register: bool,
    pub(crate) name: String,
    pub(crate) password: Secret,
}

/// The form.
#[derive(Debug)]
pub(crate) struct LoginForm {
    pub(crate) field: Field,
    pub(crate) register: bool,
    pub(crate) name: LineEditor,
    pub(crate) password: LineEditor,
    first: Option<Secret>,
    /// What went wrong before.
    pub(crate) message: Option<String>,
}

impl LoginForm {
    /// An empty form, the name filled in where it is known.
    pub(crate) fn new(name: Option<String>, message: Option<String>) -> Self {
        let mut form = Self {
            field: Field::Choice,
            register: false,
            name: LineEditor::default(),
            password: LineEditor::default(),
            first: None,
            message,
        };
        form.name.set(name.unwrap_or_default());
        form
    }

    /// Log in or register?
    pub(crate) fn choose(&mut self, register: bool) {
        self.register = register;
        self.message = None;
        self.field = Field::Name;
    }

    /// Back to the choice.
    pub(crate) fn back(&mut self, message: Option<String>) {
        self.password.clear();
        self.first = None;
        self.message = message;
        self.field = Field::Choice;
    }

    /// The line that is being filled in.
    pub(crate) fn editor(&mut self) -> Option<&mut LineEditor> {
        match self.field {
            Field::Name => Some(&mut self.name),
            Field::Password | Field::Again => Some(&mut self.password),
            Field::Choice | Field::Busy => None,
        }
    }

    /// Enter: on to the next line. What was filled in, after the last.
    pub(crate) fn enter(&mut self) -> Option<Filled> {
        self.message = None;
        match self.field {
            Field::Choice | Field::Busy => None,
            Field::Name => {
                let name = self.name.text().trim().to_owned();
                if Name::new(Cow::Borrowed(&name)).is_some() {
                    self.name.set(name);
                    self.field = Field::Password;
                } else {
                    self.message = Some("a name is 1 to 32 letters, digits, and _ - . of any script".into());
                }
                None
            }
            Field::Password => self.enter_password(),
            Field::Again => {
                let again = self.take_password();
                if self.first.as_ref() == Some(&again) {
                    return Some(self.filled(again));
                }
                self.first = None;
                self.field = Field::Password;
                self.message = Some("the two differ: once more".into());
                None
            }
        }
    }

    fn enter_password(&mut self) -> Option<Filled> {
        let password = self.take_password();
        if !is_password(password.reveal()) {
            self.message = Some("a password has 8 to 128 bytes".into());
            return None;
        }
        if self.register {
            self.first = Some(password);
            self.field = Field::Again;
            return None;
        }
        Some(self.filled(password))
    }

    /// The editor forgets it: nothing of it stays in a history.
    fn take_password(&mut self) -> Secret {
        let password = Secret::new(self.password.text());
        self.password.clear();
        password
    }

    fn filled(&mut self, password: Secret) -> Filled {
        self.first = None;
        self.field = Field::Busy;
        Filled { register: self.register, name: self.name.text().to_owned(), password }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(form: &mut LoginForm, text: &str) -> Option<Filled> {
        form.editor().unwrap().insert(text);
        form.enter()
    }

    #[test]
    fn a_login_takes_name_and_password() {
        let mut form = LoginForm::new(None, None);
        form.choose(false);
        assert_eq!(fill(&mut form, "a b"), None);
        assert!(form.message.is_some());
        form.name.clear();
        assert_eq!(fill(&mut form, "amy "), None);
        assert_eq!(fill(&mut form, "short"), None);
        assert_eq!((form.field, form.password.text()), (Field::Password, ""));
        let filled = fill(&mut form, "correct horse").unwrap();
        assert_eq!((filled.register, filled.name.as_str()), (false, "amy"));
        assert_eq!(filled.password.reveal(), "correct horse");
        assert_eq!(form.field, Field::Busy);
    }

    #[test]
    fn a_registration_asks_for_the_password_twice() {
        let mut form = LoginForm::new(Some("amy".into()), None);
        form.choose(true);
        assert_eq!(form.enter(), None);
        assert_eq!(fill(&mut form, "correct horse"), None);
        assert_eq!(fill(&mut form, "correct house"), None);
        assert_eq!(form.field, Field::Password);
        fill(&mut form, "correct horse");
        let filled = fill(&mut form, "correct horse").unwrap();
        assert!(filled.register);
    }
}
