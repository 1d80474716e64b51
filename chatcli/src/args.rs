//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::error::CliError;
use crate::ui::Look;

/// The console chat client: a screen in a terminal, a line mode for scripts
///
/// In a terminal it asks you to log in or to register, and opens a screen to chat in; /help there tells the commands. It reconnects by
/// itself, and what you missed arrives then.
///
/// When standard input or output is not a terminal it is a script mode: one command per line in, one event per line out.
#[derive(Debug, Parser)]
#[command(name = "chatcli", version, after_long_help = SCRIPTS, after_help = "chatcli --help tells all, also about scripts.")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// The server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6000", value_parser = address)]
    pub(crate) connect: String,

    /// Speak by TLS, with a server whose certificate names HOST
    #[arg(long)]
    pub(crate) tls: bool,

    /// Trust the authorities in this PEM file, not those of this machine
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub(crate) ca: Option<PathBuf>,

    /// The name to log in with; the password is asked for
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Colours for a dark or a light terminal; NO_COLOR in the environment leaves them out
    #[arg(long, value_enum, value_name = "LOOK", default_value = "auto")]
    pub(crate) theme: Look,

    /// Leave the mouse to the terminal; else its wheel scrolls, and text is selected with Shift held
    #[arg(long)]
    pub(crate) no_mouse: bool,

    /// Neither use nor keep a remembered login; else a login's token is kept in the user's state folder until /logout
    #[arg(long)]
    pub(crate) no_remember: bool,

    /// Script mode, even in a terminal
    #[arg(long)]
    pub(crate) script: bool,

    /// In script mode: how long a command, and the end, may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// In script mode: whether to go on behind a command that failed
    #[arg(long, value_name = "true|false", action = ArgAction::Set, default_value_t = true, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) keep_going: bool,

    /// Write a log to this file; without FILE, to chatcli/chatcli.log in the user's state folder
    ///
    /// The state folder is $XDG_STATE_HOME, else ~/.local/state. Passwords, tokens and texts are not logged. CHATCLI_LOG sets the levels, as in
    /// `info,reactor=debug`.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "absent, present, and present with a value are three cases")]
    pub(crate) log_file: Option<Option<PathBuf>>,

    #[command(subcommand)]
    pub(crate) tool: Option<Tool>,
}

/// What is printed instead of chatting.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Tool {
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page
    Man,
}

impl Tool {
    /// Prints it.
    ///
    /// # Errors
    /// When `out` fails.
    pub(crate) fn print(self, out: &mut impl Write) -> Result<(), CliError> {
        let mut command = Args::command();
        let mut text = Vec::new();
        match self {
            Self::Completions { shell } => clap_complete::generate(shell, &mut command, "chatcli", &mut text),
            Self::Man => {
                let page = Man::new(command);
                page.render(&mut text).map_err(CliError::io("cannot write the man page"))?;
            }
        }
        // Whoever reads no further, as `| head` does, has had enough.
        match out.write_all(&text).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(CliError::io("cannot write to standard output")),
        }
    }
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err("it must be HOST:PORT, as in 127.0.0.1:6000 or [::1]:6000".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| *time <= Duration::from_hours(24)).ok_or_else(|| "it must be 0 to 86400".into())
}

const SCRIPTS: &str = r#"SCRIPT MODE
  One command per line in, executed in order; empty lines and lines that begin with # are skipped.
    register NAME PASSWORD       make a user (it does not log in)
    login NAME PASSWORD          log in; after a lost connection that goes by itself
    token TOKEN                  log in by token
    token                        say the token of this login (a secret; valid 7 days)
    logout                       log out, which revokes the token
    password OLD NEW             change the password (OLD without blanks); other sessions end
    send NAME TEXT               send to a user; does not wait for `sent`. TEXT is the rest of the
                                 line, or, when all of it is a JSON string, what that encodes
    wait EVENT [N] [SECONDS]     wait until N (1) events of that kind came; each wait uses up the
                                 events it waited for, so none is counted twice and none is missed
    history NAME [N]             the last N (100) entries of the conversation with NAME
    conversations                all conversations
    who NAME                     look a user up
    read NAME                    mark what has arrived from NAME as read
    friend add|accept|reject|remove USER, friends, block USER, unblock USER, blocked
    group create [--open] NAME, group join|leave|members GROUP,
    group invite|kick USER GROUP, group role USER ROLE GROUP,
    group rename #NUMBER NAME, groups
                                 GROUP is #NUMBER or #NAME; so is NAME in send, history, read
    quit                         as the end of the input

  One event per line out, flushed at once. Texts are JSON strings, so an event is always one line.
    connected SERVER NODE                 disconnected RETRY_MS|- "WHY"
    registered USER                       online USER NAME          (also after each reconnect)
    synced                                offline "WHY"
    message CONV SEQ FROM "TEXT"          an entry arrived: each exactly once, whatever happens
    event CONV SEQ FROM WHAT USER …       the same for what happens to a group; WHAT is created,
                                          joined, left, kicked, renamed or role
    sent CONV SEQ TO                      an own message is stored for good
    delivered CONV SEQ WHO                WHO's device has everything up to SEQ
    read CONV SEQ WHO                     WHO has read everything up to SEQ
    typing CONV WHO                       reset CONV SEQ
    entry CONV SEQ FROM "TEXT"            then: history CONV COUNT more|all
    conversation CONV UNREAD LAST NAME    then: conversations COUNT
    friend WHAT USER NAME                 WHAT is requested, accepted, rejected or removed
    presence USER NAME online|offline     invite CONV FROM "NAME"
    user USER NAME online|offline         marked CONV SEQ
    created CONV                          done (a command about friends or groups)
    friendship USER NAME STATE online|offline  then: friends COUNT
    blocked COUNT NAME …                  group CONV ROLE|invited MEMBERS "NAME"  then: groups COUNT
    member CONV USER NAME ROLE online|offline  then: members CONV COUNT more|all
    token TOKEN                           bye CODE "MESSAGE"
    error CODE "MESSAGE"                  a command failed; CODE is the protocol's, or one of
                                          usage, timeout, not_logged_in, busy, bad_reply

  At the end of the input it waits until what was sent is answered, at most --timeout, and quits.

EXAMPLE
  printf '%s\n' 'register amy correct-horse' 'login amy correct-horse' 'send bob hello' | chatcli

EXIT CODES
  0 done, 1 something failed, 2 wrong usage"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    fn printed(args: &[&str]) -> String {
        let args = Args::try_parse_from([&["chatcli"], args].concat()).unwrap();
        let mut out = Vec::new();
        args.tool.unwrap().print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_shell_gets_completions_of_every_option() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let text = printed(&["completions", shell]);
            for option in ["connect", "no-remember", "theme", "tls"] {
                assert!(text.contains(option), "{shell} has no {option}");
            }
        }
        assert!(Args::try_parse_from(["chatcli", "completions", "tcsh"]).is_err());
    }

    #[test]
    fn the_man_page_tells_the_options_and_the_scripts() {
        let page = printed(&["man"]);
        assert!(page.contains(".TH chatcli 1"), "{page}");
        for word in ["connect", "no\\-remember", "SCRIPT MODE", "EXIT CODES", "group create"] {
            assert!(page.contains(word), "{word}");
        }
    }

    #[test]
    fn an_authority_makes_sense_with_tls_only() {
        assert!(Args::try_parse_from(["chatcli", "--ca", "x.pem"]).is_err());
        assert!(Args::try_parse_from(["chatcli", "--tls", "--ca", "x.pem"]).is_ok());
    }

    #[test]
    fn no_password_is_taken_from_the_command_line() {
        let help = Args::command().render_long_help().to_string();
        assert!(!help.contains("--password"));
        assert!(Args::try_parse_from(["chatcli", "--password", "x"]).is_err());
    }

    #[test]
    fn bad_values_are_refused_with_how_they_should_be() {
        for bad in
            [["--connect", "localhost"], ["--connect", ":6000"], ["--connect", "a:0"], ["--timeout", "-1"]]
        {
            assert!(Args::try_parse_from([&["chatcli"][..], &bad].concat()).is_err(), "{bad:?}");
        }
        let args = Args::try_parse_from(["chatcli", "--timeout", "0.5", "--keep-going=false"]).unwrap();
        assert_eq!((args.timeout, args.keep_going), (Duration::from_millis(500), false));
    }

    #[test]
    fn the_log_file_has_a_default_place() {
        let parse = |args: &[&str]| Args::try_parse_from([&["chatcli"], args].concat()).unwrap().log_file;
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&["--log-file"]), Some(None));
        assert_eq!(parse(&["--log-file", "x.log"]), Some(Some(PathBuf::from("x.log"))));
    }
}
