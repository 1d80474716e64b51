//! The commands of a script: one per line.

use std::time::Duration;

use crate::order::Order;
use crate::secret::Secret;
use crate::service::Refusal;

/// A command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Register {
        name: String,
        password: Secret,
    },
    Login {
        name: String,
        password: Secret,
    },
    /// Log in by token; without one, say the present token.
    Token(Option<Secret>),
    Logout,
    Password {
        old: Secret,
        new: Secret,
    },
    Send {
        name: String,
        text: String,
    },
    Wait {
        event: String,
        count: u64,
        timeout: Option<Duration>,
    },
    History {
        name: String,
        count: usize,
    },
    Conversations,
    Who {
        name: String,
    },
    Read {
        name: String,
    },
    /// Something about friends or groups.
    Order(Order),
    Quit,
}

impl Command {
    /// Reads a line. `None` for an empty line and for a comment.
    ///
    /// # Errors
    /// When it is no command.
    pub(crate) fn parse(line: &str) -> Result<Option<Self>, Refusal> {
        let line = line.trim_end_matches(['\n', '\r']).trim_start();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let (word, rest) = split(line);
        Self::read(word, rest).map(Some)
    }

    fn read(word: &str, rest: &str) -> Result<Self, Refusal> {
        if let Some(order) = Order::parse(word, rest) {
            return order.map(Self::Order).map_err(|usage| Refusal::new("usage", usage));
        }
        let command = match word {
            "register" | "login" => {
                let (name, password) = split(rest);
                let name = need(name, "NAME PASSWORD", word)?;
                let password = Secret::new(need(password, "NAME PASSWORD", word)?);
                if word == "register" {
                    Self::Register { name, password }
                } else {
                    Self::Login { name, password }
                }
            }
            "token" => Self::Token((!rest.trim().is_empty()).then(|| Secret::new(rest.trim()))),
            "logout" => Self::Logout,
            "password" => {
                let (old, new) = split(rest);
                let old = Secret::new(need(old, "OLD NEW", word)?);
                Self::Password { old, new: Secret::new(need(new, "OLD NEW", word)?) }
            }
            "send" => {
                let (name, text) = split(rest);
                let name = need(name, "NAME TEXT", word)?;
                Self::Send { name, text: unquote(&need(text, "NAME TEXT", word)?) }
            }
            "wait" => {
                let (event, rest) = split(rest);
                let event = need(event, "EVENT [N] [TIMEOUT_S]", word)?;
                let (count, timeout) = split(rest);
                let count = number(count)?.unwrap_or(1);
                Self::Wait { event, count, timeout: number(timeout)?.map(Duration::from_secs) }
            }
            "history" => {
                let (name, count) = split(rest);
                let name = need(name, "NAME [N]", word)?;
                let count = number(count)?.unwrap_or(100).clamp(1, 100_000);
                Self::History { name, count: usize::try_from(count).unwrap_or(usize::MAX) }
            }
            "conversations" => Self::Conversations,
            "who" => Self::Who { name: need(rest, "NAME", word)? },
            "read" => Self::Read { name: need(rest, "NAME", word)? },
            "quit" => Self::Quit,
            _ => {
                return Err(Refusal::new("usage", format!("no such command: {word:?} (see chatcli --help)")));
            }
        };
        Ok(command)
    }
}

/// The first word, and what comes after the one blank behind it.
fn split(text: &str) -> (&str, &str) {
    text.split_once([' ', '\t']).unwrap_or((text, ""))
}

fn need(word: &str, usage: &str, command: &str) -> Result<String, Refusal> {
    if word.trim().is_empty() {
        return Err(Refusal::new("usage", format!("usage: {command} {usage}")));
    }
    Ok(word.to_owned())
}

fn number(word: &str) -> Result<Option<u64>, Refusal> {
    let word = word.trim();
    if word.is_empty() {
        return Ok(None);
    }
    word.parse().map(Some).map_err(|_| Refusal::new("usage", format!("not a number: {word:?}")))
}

/// A text that is a whole JSON string stands for what it encodes; any other for itself.
fn unquote(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        Command::parse(line).unwrap().unwrap()
    }

    #[test]
    fn a_text_is_taken_as_it_stands_or_as_a_json_string() {
        let send = |text: &str| Command::Send { name: "bob".into(), text: text.into() };
        assert_eq!(parse("send bob  two  blanks \n"), send(" two  blanks "));
        assert_eq!(parse(r#"send bob "two\nlines""#), send("two\nlines"));
        assert_eq!(parse(r#"send bob "hi" she said"#), send("\"hi\" she said"));
        assert_eq!(parse("send bob 123"), send("123"), "a number is a text");
    }

    #[test]
    fn commands_about_groups_are_those_of_the_screen() {
        let expected = Order::Create { name: "the lunch".into(), open: false };
        assert_eq!(parse("group create the lunch\r\n"), Command::Order(expected));
    }

    #[test]
    fn numbers_have_defaults() {
        let wait = |count, timeout| Command::Wait { event: "message".into(), count, timeout };
        assert_eq!(parse("wait message"), wait(1, None));
        assert_eq!(parse("wait message 3"), wait(3, None));
        assert_eq!(parse("wait message 3 60"), wait(3, Some(Duration::from_secs(60))));
        assert_eq!(parse("history bob"), Command::History { name: "bob".into(), count: 100 });
        assert_eq!(parse("history bob 5\r\n"), Command::History { name: "bob".into(), count: 5 });
    }

    #[test]
    fn what_is_no_command_says_how_it_should_be() {
        for bad in [
            "send",
            "send bob",
            "send bob ",
            "login amy",
            "wait",
            "wait message x",
            "dance",
            "who",
            "group create",
            "password x",
        ] {
            let refusal = Command::parse(bad).unwrap_err();
            assert_eq!(refusal.code, "usage", "{bad}");
        }
        assert_eq!(Command::parse("").unwrap(), None);
        assert_eq!(Command::parse("  # a comment").unwrap(), None);
    }

    #[test]
    fn a_password_may_have_blanks_and_is_not_shown() {
        let command = parse("login amy correct horse battery");
        assert_eq!(
            command,
            Command::Login { name: "amy".into(), password: Secret::new("correct horse battery") }
        );
        assert!(!format!("{command:?}").contains("horse"));
    }
}
