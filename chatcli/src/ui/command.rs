//! What a submitted line asks for.

/// A command of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing.
    Empty,
    /// Say it in the open conversation.
    Text(String),
    /// Open the conversation with this user.
    To(String),
    /// Send to this user.
    Msg {
        name: String,
        text: String,
    },
    List,
    /// Load so many older entries.
    History(usize),
    Who(String),
    Logout,
    Quit,
    Help,
    /// It is none; what to say about it.
    Bad(String),
}

/// What `/help` says.
pub(crate) const HELP: &[&str] = &[
    "/to NAME            open the conversation with NAME; what you type then goes there",
    "/msg NAME TEXT      send without opening",
    "/list               your conversations",
    "/history [N]        load N (50) older messages; PgUp does it too",
    "/who NAME           is NAME known, and online?",
    "/logout  /quit      log out; leave (Ctrl-C)",
    "//TEXT              a message that begins with a slash",
    "Ctrl-N Ctrl-P       next and previous conversation",
    "PgUp PgDn           scroll; Up Down: what you entered before",
    "Alt-Enter           a new line in the message",
    "own messages are    sending, sent (stored for good), delivered, read",
];

/// Entries that `/history` loads when it is not told.
const HISTORY: usize = 50;

impl Command {
    /// Reads a submitted line.
    pub(crate) fn parse(line: &str) -> Self {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Self::Empty;
        }
        let Some(rest) = line.trim_start().strip_prefix('/') else { return Self::Text(line.to_owned()) };
        if rest.starts_with('/') {
            return Self::Text(rest.to_owned());
        }
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let rest = rest.trim();
        match word {
            "to" => name(rest).map_or_else(|| Self::Bad("usage: /to NAME".into()), Self::To),
            "who" => name(rest).map_or_else(|| Self::Bad("usage: /who NAME".into()), Self::Who),
            "msg" => match rest.split_once(char::is_whitespace) {
                Some((name, text)) if !text.trim().is_empty() => {
                    Self::Msg { name: name.to_owned(), text: text.trim_start().to_owned() }
                }
                _ => Self::Bad("usage: /msg NAME TEXT".into()),
            },
            "list" => Self::List,
            "history" if rest.is_empty() => Self::History(HISTORY),
            "history" => match rest.parse() {
                Ok(count @ 1..=10_000) => Self::History(count),
                _ => Self::Bad("usage: /history [1 to 10000]".into()),
            },
            "logout" => Self::Logout,
            "quit" | "q" | "exit" => Self::Quit,
            "help" | "h" | "?" => Self::Help,
            _ => Self::Bad(format!("no such command: /{word} (/help shows them)")),
        }
    }
}

fn name(rest: &str) -> Option<String> {
    (!rest.is_empty() && !rest.contains(char::is_whitespace)).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_said_and_a_slash_commands() {
        assert_eq!(Command::parse(" hi "), Command::Text(" hi ".into()));
        assert_eq!(Command::parse("//etc"), Command::Text("/etc".into()));
        assert_eq!(Command::parse("  "), Command::Empty);
        assert_eq!(Command::parse("/to bob "), Command::To("bob".into()));
        assert_eq!(
            Command::parse("/msg bob how are  you"),
            Command::Msg { name: "bob".into(), text: "how are  you".into() }
        );
        assert_eq!(Command::parse("/history"), Command::History(HISTORY));
        assert_eq!(Command::parse("/history 7"), Command::History(7));
        for bad in ["/to", "/to a b", "/msg bob", "/msg", "/history x", "/history 0", "/who", "/dance"] {
            assert!(matches!(Command::parse(bad), Command::Bad(_)), "{bad}");
        }
    }
}
