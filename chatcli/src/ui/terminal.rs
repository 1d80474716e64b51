//! The terminal while the screen is shown: taken over at the start, given back at the end, at a panic too.

use std::io::{self, Stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::style::Print;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, SetTitle, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use crate::error::CliError;

/// Buttons and the wheel are told, movements are not; in the form that has no greatest column.
const MOUSE_ON: &str = "\u{1b}[?1000h\u{1b}[?1006h";
const MOUSE_OFF: &str = "\u{1b}[?1006l\u{1b}[?1000l";

/// The terminal keeps its title, and takes it out again.
const KEEP_TITLE: &str = "\u{1b}[22;0t";
const OLD_TITLE: &str = "\u{1b}[23;0t";

/// Whether it is to be given back: a panic hook knows no owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over, with the mouse or without.
    ///
    /// # Errors
    /// When it refuses.
    pub(crate) fn take(mouse: bool) -> Result<Self, CliError> {
        let (before, ours) = (panic::take_hook(), thread::current().id());
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == ours {
                // First the terminal, so that what the others print can be read.
                give_back();
                before(info);
            } else {
                // The screen is still shown, and a printed panic would tear it.
                log::error!("{info}");
            }
        }));
        enable_raw_mode().map_err(CliError::io("cannot take the terminal over"))?;
        TAKEN.store(true, Ordering::SeqCst);
        let mouse = if mouse { MOUSE_ON } else { "" };
        let begun = execute!(
            io::stdout(),
            EnterAlternateScreen,
            EnableBracketedPaste,
            Print(KEEP_TITLE),
            Print(mouse)
        )
        .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match begun {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(CliError::io("cannot take the terminal over")(error))
            }
        }
    }
}

impl Screen {
    /// Sets what stands above the terminal. There must be nothing in it that a terminal obeys.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(crate) fn set_title(&mut self, title: &str) -> io::Result<()> {
        execute!(io::stdout(), SetTitle(title))
    }

    /// Rings the bell.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(crate) fn ring(&mut self) -> io::Result<()> {
        execute!(io::stdout(), Print('\u{7}'))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone cannot be given back.
        let _ = execute!(
            io::stdout(),
            Print(MOUSE_OFF),
            Print(OLD_TITLE),
            DisableBracketedPaste,
            LeaveAlternateScreen,
            crossterm::cursor::Show
        );
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use std::io::IsTerminal as _;
    use std::time::Duration;

    use testkit::Tmux;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_panic_gives_the_terminal_back() {
        if !Tmux::available() {
            return;
        }
        let exe = std::env::current_exe().unwrap();
        let script = "\"$0\" --exact ui::terminal::tests::panics_on_the_screen --ignored --nocapture; stty -a; read -r line; echo \"got $line\"";
        let tmux =
            Tmux::new(100, 60, &["sh", "-c", script, &exe.display().to_string()], &[("RUST_BACKTRACE", "0")]);
        // Both what the panic said and the shell's own words: on the screen that was there before.
        let screen = tmux.wait_for("icanon", LONG);
        assert!(screen.contains("a defect, to be read"), "{screen}");
        assert!(screen.contains(" echo ") && !screen.contains("on the screen of the chat"), "{screen}");
        tmux.send_line("typed");
        tmux.wait_for("got typed", LONG);
    }

    #[test]
    #[ignore = "the other half of the test above, which runs it in a terminal"]
    fn panics_on_the_screen() {
        if !io::stdout().is_terminal() {
            return;
        }
        let mut screen = Screen::take(true).unwrap();
        screen.terminal.draw(|frame| frame.render_widget("on the screen of the chat", frame.area())).unwrap();
        panic!("a defect, to be read");
    }
}
