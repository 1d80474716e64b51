//! The terminal while the screen is shown: taken over at the start, given back at the end, at a panic too.

use std::io::{self, Stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use crate::error::CliError;

/// Whether it is to be given back: a panic hook knows no owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When it refuses.
    pub(crate) fn take() -> Result<Self, CliError> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // First the terminal, so that what the others print can be read.
            give_back();
            before(info);
        }));
        enable_raw_mode().map_err(CliError::io("cannot take the terminal over"))?;
        TAKEN.store(true, Ordering::SeqCst);
        let begun = execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)
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

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone cannot be given back.
        let _ = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, crossterm::cursor::Show);
        let _ = disable_raw_mode();
    }
}
