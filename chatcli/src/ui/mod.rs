//! `ShowUi`: the screen in a terminal.

mod app;
mod chat;
mod command;
mod completion;
#[cfg(test)]
mod group_tests;
mod line_editor;
mod login_form;
mod mention;
mod news;
mod pane;
mod password_entry;
#[cfg(test)]
mod readme_tests;
mod report;
mod safe_text;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod view;

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};
use crossterm::event::{self, Event as TermEvent};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::client::{Client, Link, News};
use crate::error::CliError;
use crate::remembered::Remembered;
use crate::service::{Event, Ticket};
use app::App;
use terminal::Screen;
pub(crate) use theme::Look;
use theme::Theme;

/// Keys that may wait while the screen is drawn.
const KEYS_MAX: usize = 1_024;

/// Events of the wire that are taken before keys are looked at again: some milliseconds' worth.
const WIRE_PER_ROUND: usize = 256;

/// How often the screen is looked at while something on it changes by itself.
const COUNTING: Duration = Duration::from_millis(250);

/// At most so often what others do is drawn; what the user does, at once.
const FRAME: Duration = Duration::from_millis(10);

/// How often otherwise.
const QUIET: Duration = Duration::from_secs(60);

/// What comes from the terminal.
enum Input {
    Event(TermEvent),
    /// It ended, or we were asked to end.
    End,
}

/// How the screen is to be.
#[derive(Debug)]
pub(crate) struct ShowConfig {
    /// The server, as the user named it.
    pub(crate) address: String,
    /// The name to log in with.
    pub(crate) name: Option<String>,
    pub(crate) look: Look,
    /// The logins that are remembered, and where new ones are kept.
    pub(crate) remembered: Option<Remembered>,
    /// Whether the mouse's wheel scrolls; else the terminal has the mouse for itself.
    pub(crate) mouse: bool,
}

/// The screen and the client behind it.
#[derive(Debug)]
pub(crate) struct ShowUi {
    client: Client,
    app: App,
    mouse: bool,
    remembered: Option<Remembered>,
    /// Whose login is remembered, and by which question it was tried.
    login: Option<(Option<Ticket>, String)>,
    /// What was set last.
    title: String,
    /// The user did something since the last drawing.
    touched: bool,
}

impl ShowUi {
    /// A screen for a client of the server at `address`.
    pub(crate) fn new(client: Client, config: ShowConfig) -> Self {
        let name = config.name.clone();
        let app = App::new(config.address, config.name, Theme::here(config.look));
        let mut ui = Self {
            client,
            app,
            mouse: config.mouse,
            remembered: None,
            login: None,
            title: String::new(),
            touched: false,
        };
        if let Some(remembered) = config.remembered {
            ui.log_in_again(&remembered, name.as_deref());
            ui.remembered = Some(remembered);
        }
        ui
    }

    /// Tries the login that is remembered, if there is one.
    fn log_in_again(&mut self, remembered: &Remembered, name: Option<&str>) {
        let Some(found) = remembered.find(name) else { return };
        let service = &mut self.client.service;
        if let Ok(ticket) = self.app.begin_remembered(service, found.name.clone(), found.token) {
            self.login = Some((Some(ticket), found.name));
        }
    }

    /// Keeps the token of a login, and forgets one that is no longer good for anything.
    fn remember(&mut self, event: &Event) {
        let Some(remembered) = &self.remembered else { return };
        match event {
            Event::LoggedIn { name, .. } => {
                let kept = self.client.service.token().map(|token| remembered.keep(name, token));
                if let Some(Err(error)) = kept {
                    log::warn!("the login is not remembered: {error}");
                }
                self.login = Some((None, name.clone()));
            }
            Event::LoggedOut { token_lives: false, .. } => self.forget(),
            Event::Refused { ticket, refusal }
                if refusal.code == "unauthorized"
                    && self.login.as_ref().is_some_and(|(tried, _)| *tried == Some(*ticket)) =>
            {
                self.forget();
            }
            _ => {}
        }
    }

    fn forget(&self) {
        if let (Some(remembered), Some((_, name))) = (&self.remembered, &self.login) {
            remembered.forget(name);
        }
    }

    /// Shows the screen until the user leaves.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(crate) fn run(mut self) -> Result<(), CliError> {
        let input = read_input()?;
        let mut screen = Screen::take(self.mouse)?;
        let mut drawn: Option<Instant> = None;
        loop {
            self.take_news();
            if self.app.is_done() {
                break;
            }
            let since = drawn.map_or(FRAME, |drawn| drawn.elapsed());
            if self.touched || since >= FRAME {
                self.draw(&mut screen)?;
                self.touched = false;
                drawn = Some(Instant::now());
                self.wait(&input, QUIET)?;
            } else {
                self.wait(&input, FRAME.saturating_sub(since))?;
            }
        }
        self.client.service.say_goodbye();
        self.client.flush();
        Ok(())
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<(), CliError> {
        let failed = || CliError::io("cannot draw on the terminal");
        if std::mem::take(&mut self.app.redraw) {
            screen.terminal.clear().map_err(failed())?;
        }
        let Self { client, app, .. } = self;
        let now = Instant::now();
        screen
            .terminal
            .draw(|frame| view::draw(frame, app, &client.service, client.link(), now))
            .map_err(failed())?;
        let title = app.title(&client.service);
        if title != self.title {
            screen.set_title(&title).map_err(failed())?;
            self.title = title;
        }
        if app.take_bell() {
            screen.ring().map_err(failed())?;
        }
        Ok(())
    }

    /// Waits for something to happen, and takes all that has.
    fn wait(&mut self, input: &Receiver<Input>, at_most: Duration) -> Result<(), CliError> {
        let counting = self.app.chat.anybody_types() || matches!(self.client.link(), Link::Down { .. });
        let at_most = if counting { COUNTING.min(at_most) } else { at_most };
        let patience = self.client.patience(Instant::now(), at_most);
        let wire = self.client.wire().clone();
        select! {
            recv(input) -> event => self.handle_input(event.unwrap_or(Input::End)),
            recv(wire) -> event => {
                self.client.handle(Instant::now(), event.map_err(|_| CliError::NetEnded)?);
            }
            default(patience) => {}
        }
        for event in wire.try_iter().take(WIRE_PER_ROUND) {
            self.client.handle(Instant::now(), event);
        }
        self.take_news();
        while let Ok(event) = input.try_recv() {
            self.handle_input(event);
        }
        let now = Instant::now();
        self.client.service.handle_time(now);
        self.app.chat.handle_time(now);
        Ok(())
    }

    /// Does what the service wants done, and shows what has happened.
    fn take_news(&mut self) {
        self.client.flush();
        while let Some(news) = self.client.news() {
            if let News::Event(event) = news {
                self.remember(&event);
                self.app.handle_event(Instant::now(), &mut self.client.service, &event);
            }
            self.client.flush();
        }
    }

    fn handle_input(&mut self, input: Input) {
        let now = Instant::now();
        self.touched = true;
        let service = &mut self.client.service;
        match input {
            Input::Event(TermEvent::Key(key)) => self.app.handle_key(now, service, key),
            Input::Event(TermEvent::Paste(text)) => self.app.handle_paste(now, service, &text),
            Input::Event(TermEvent::Mouse(mouse)) => self.app.handle_mouse(now, service, mouse.kind),
            // A new size is looked at when drawing.
            Input::Event(_) => {}
            Input::End => self.app.quit(),
        }
        if std::mem::take(&mut self.app.chat.logging_out) {
            self.forget();
        }
    }
}

/// Reads keys and signals on threads of their own, which end with the program.
fn read_input() -> Result<Receiver<Input>, CliError> {
    let (give, take) = bounded(KEYS_MAX);
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(CliError::io("cannot listen for signals"))?;
    let end = give.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            if end.send(Input::End).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        loop {
            // An error means that the terminal is gone.
            let input = event::read().map_or(Input::End, Input::Event);
            let ends = matches!(input, Input::End);
            if give.send(input).is_err() || ends {
                return;
            }
        }
    });
    Ok(take)
}
