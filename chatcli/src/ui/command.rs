//! What a submitted line asks for.

use crate::order::{ORDERS, Order};

/// A command of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing.
    Empty,
    /// Say it in the open conversation.
    Text(String),
    /// Open the conversation with this user, or this group.
    To(String),
    /// Send to this user, or to this group.
    Msg {
        name: String,
        text: String,
    },
    /// Send to a group: its name, which may have several words, and the text behind it. Who knows the groups tells them apart.
    MsgGroup(String),
    List,
    /// Load so many older entries.
    History(usize),
    Who(String),
    /// Something about friends or groups.
    Order(Order),
    Password,
    Logout,
    Quit,
    Help,
    /// It is none; what to say about it.
    Bad(String),
}

/// The first words of all commands.
pub(crate) const WORDS: &[&str] = &[
    "block", "blocked", "friend", "friends", "group", "groups", "help", "history", "list", "logout", "msg",
    "password", "quit", "to", "unblock", "who",
];

/// What stands between the two columns of a line of the program's own.
pub(crate) const COLUMN: char = '\u{1f}';

const HELP: &[(&str, &str)] = &[
    ("/to NAME, /to #GROUP", "open a conversation; what you type then goes there"),
    ("/msg NAME TEXT", "send without opening; /msg #GROUP TEXT"),
    ("/list", "your conversations"),
    ("/history [N]", "load N (50) older messages; PgUp does it too"),
    ("/who NAME", "is NAME known, and online?"),
];

const HELP_KEYS: &[(&str, &str)] = &[
    ("/password", "change your password; it is asked for, and not shown"),
    ("/logout, /quit", "log out and forget this login; leave (Ctrl-C)"),
    ("//TEXT", "a message that begins with a slash"),
    ("@NAME", "in a message: rings NAME's bell"),
    ("Tab, Shift-Tab", "complete a command, a name, a group"),
    ("Ctrl-N, Ctrl-P", "next and previous conversation"),
    ("PgUp, PgDn, wheel", "scroll; Esc: back to the newest"),
    ("Up, Down", "what you entered before"),
    ("Alt-Enter", "a new line in the message"),
    ("own messages are", "sending, sent (stored for good), delivered, read"),
];

/// What `/help` says.
pub(crate) fn help() -> Vec<String> {
    let orders = ORDERS.iter().map(|(what, why)| (what.replace(", ", ", /"), *why));
    let orders = orders.map(|(what, why)| (format!("/{what}"), why));
    let fixed = |part: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        part.iter().map(|(what, why)| ((*what).to_owned(), *why)).collect()
    };
    let all = fixed(HELP).into_iter().chain(orders).chain(fixed(HELP_KEYS));
    all.map(|(what, why)| format!("{what}{COLUMN}{why}")).collect()
}

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
        if let Some(order) = Order::parse(word, rest) {
            return order
                .map_or_else(|usage| Self::Bad(usage.replacen("usage: ", "usage: /", 1)), Self::Order);
        }
        match word {
            "to" if rest.starts_with('#') => Self::To(rest.to_owned()),
            "to" => name(rest).map_or_else(|| Self::Bad("usage: /to NAME or /to #GROUP".into()), Self::To),
            "who" => name(rest).map_or_else(|| Self::Bad("usage: /who NAME".into()), Self::Who),
            "msg" if rest.starts_with('#') => Self::MsgGroup(rest.to_owned()),
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
            "password" => Self::Password,
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
        assert_eq!(Command::parse("/msg #the lunch  hi"), Command::MsgGroup("#the lunch  hi".into()));
        assert_eq!(Command::parse("/history"), Command::History(HISTORY));
        assert_eq!(Command::parse("/history 7"), Command::History(7));
        assert_eq!(Command::parse("/to #the lunch"), Command::To("#the lunch".into()));
        assert_eq!(Command::parse("/groups"), Command::Order(Order::Groups));
        assert_eq!(
            Command::parse("/group role x"),
            Command::Bad("usage: /group role USER owner|admin|member [GROUP]".into())
        );
        for bad in ["/to", "/to a b", "/msg bob", "/msg", "/history x", "/history 0", "/who", "/dance"] {
            assert!(matches!(Command::parse(bad), Command::Bad(_)), "{bad}");
        }
    }

    #[test]
    fn help_teaches_every_command() {
        let lines = help();
        let text = lines.join("\n");
        for word in WORDS.iter().filter(|word| **word != "help") {
            assert!(text.contains(&format!("/{word}")), "{word}");
            let read = Command::parse(&format!("/{word}"));
            assert!(!matches!(&read, Command::Bad(why) if why.contains("no such")), "{word}: {read:?}");
        }
        assert!(lines.iter().all(|line| line.matches(COLUMN).count() == 1), "{text}");
    }
}
