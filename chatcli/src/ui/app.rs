//! The screen's state without a terminal: keys and news in, what is to be drawn out.

use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEventKind};
use schema::text::name_key;

use super::chat::Chat;
use super::login_form::{Field, Filled, LoginForm};
use super::mention::mentions;
use super::safe_text::safe_line;
use super::theme::Theme;
use crate::secret::Secret;
use crate::service::{ClientService, Credential, Event, Question, Refusal, Ticket};

/// Rows that a step of the mouse's wheel scrolls.
const WHEEL_ROWS: usize = 3;

/// Which face is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// Nobody is logged in.
    Form,
    /// The chat.
    Chat,
}

/// The screen.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) address: String,
    pub(crate) theme: Theme,
    pub(crate) face: Face,
    pub(crate) form: LoginForm,
    pub(crate) chat: Chat,
    /// Rows of a page, as drawn last.
    pub(crate) page: usize,
    /// What the form waits for, and what was filled in: nothing when a remembered login is tried.
    pending: Option<(Ticket, Option<Filled>)>,
    quit: bool,
    /// Messages that spoke to the user since the last key.
    mentions: usize,
    /// The bell is to be rung.
    bell: bool,
    /// Everything is to be drawn anew, whatever is on the screen.
    pub(crate) redraw: bool,
}

impl App {
    pub(crate) fn new(address: String, name: Option<String>, theme: Theme) -> Self {
        Self {
            address,
            theme,
            face: Face::Form,
            form: LoginForm::new(name, None),
            chat: Chat::default(),
            page: 10,
            pending: None,
            quit: false,
            mentions: 0,
            bell: false,
            redraw: false,
        }
    }

    /// Logs in by a token, without asking.
    ///
    /// # Errors
    /// When that cannot be asked now.
    pub(crate) fn begin_remembered(
        &mut self,
        service: &mut ClientService,
        name: String,
        token: Secret,
    ) -> Result<Ticket, Refusal> {
        let ticket = service.login(Credential::Token(token))?;
        self.form.name.set(name);
        self.form.field = Field::Busy;
        self.pending = Some((ticket, None));
        Ok(ticket)
    }

    /// Whether the program is to end.
    pub(crate) fn is_done(&self) -> bool {
        self.quit || self.chat.quit
    }

    /// Whether the bell is to be rung, once.
    pub(crate) fn take_bell(&mut self) -> bool {
        std::mem::take(&mut self.bell)
    }

    /// What stands above the terminal: who is logged in, and how often they were spoken to since the last key.
    pub(crate) fn title(&self, service: &ClientService) -> String {
        let name = service.me().map_or_else(String::new, |me| format!(" · {}", safe_line(&me.name)));
        match self.mentions {
            0 => format!("chatcli{name}"),
            count => format!("({count}) chatcli{name}"),
        }
    }

    /// The mouse did something.
    pub(crate) fn handle_mouse(&mut self, now: Instant, service: &mut ClientService, kind: MouseEventKind) {
        match (self.face, kind) {
            (Face::Chat, MouseEventKind::ScrollUp) => self.chat.scroll_up(now, service, WHEEL_ROWS),
            (Face::Chat, MouseEventKind::ScrollDown) => self.chat.scroll_down(WHEEL_ROWS),
            _ => {}
        }
    }

    /// The program is to end.
    pub(crate) fn quit(&mut self) {
        self.quit = true;
    }

    /// A key was pressed.
    pub(crate) fn handle_key(&mut self, now: Instant, service: &mut ClientService, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        self.mentions = 0;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, control) {
            (KeyCode::Char('c'), true) => self.quit = true,
            (KeyCode::Char('l'), true) => self.redraw = true,
            _ => match self.face {
                Face::Form => self.handle_form_key(now, service, key, control),
                Face::Chat => self.handle_chat_key(now, service, key, control),
            },
        }
    }

    /// A text was pasted.
    pub(crate) fn handle_paste(&mut self, now: Instant, service: &mut ClientService, text: &str) {
        match self.face {
            Face::Chat => self.chat.typed(now, service, text),
            Face::Form => {
                // A password copied with its line end is the password.
                if let Some(editor) = self.form.editor() {
                    editor.insert(text.trim_end_matches(['\r', '\n']));
                }
            }
        }
    }

    fn handle_form_key(&mut self, now: Instant, service: &mut ClientService, key: KeyEvent, control: bool) {
        match (key.code, self.form.field) {
            (KeyCode::Char('q'), Field::Choice) if !control => self.quit = true,
            (KeyCode::Char('l'), Field::Choice) if !control => self.form.choose(false),
            (KeyCode::Char('r'), Field::Choice) if !control => self.form.choose(true),
            (KeyCode::Char('d'), _) if control => self.quit = true,
            (KeyCode::Esc, _) => {
                if let Some((ticket, _)) = self.pending.take() {
                    service.give_up(ticket);
                }
                self.form.back(None);
            }
            (KeyCode::Enter, _) => {
                if let Some(filled) = self.form.enter() {
                    self.begin(now, service, filled);
                }
            }
            _ => {
                if let Some(editor) = self.form.editor() {
                    edit(editor, key, control);
                }
            }
        }
    }

    /// The form is filled in: registers or logs in.
    fn begin(&mut self, now: Instant, service: &mut ClientService, filled: Filled) {
        let (name, password) = (filled.name.clone(), filled.password.clone());
        let asked = if filled.register {
            service.ask(now, Question::Register { name, password })
        } else {
            service.login(Credential::Password { name, password })
        };
        match asked {
            Ok(ticket) => self.pending = Some((ticket, Some(filled))),
            Err(refusal) => self.form.back(Some(refusal.to_string())),
        }
    }

    fn handle_chat_key(&mut self, now: Instant, service: &mut ClientService, key: KeyEvent, control: bool) {
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let chat = &mut self.chat;
        if let Some(entry) = &mut chat.password {
            match key.code {
                KeyCode::Enter => chat.submit(now, service),
                KeyCode::Esc => chat.password = None,
                _ => edit(&mut entry.editor, key, control),
            }
            return;
        }
        match key.code {
            KeyCode::Tab => return chat.complete(service, false),
            KeyCode::BackTab => return chat.complete(service, true),
            _ => chat.end_completion(),
        }
        match key.code {
            KeyCode::Enter if alt => chat.editor.insert("\n"),
            KeyCode::Enter => chat.submit(now, service),
            KeyCode::Char('d') if control && chat.editor.text().is_empty() => self.quit = true,
            KeyCode::Char('n') if control => chat.step(now, service, 1),
            KeyCode::Char('p') if control => chat.step(now, service, -1),
            KeyCode::Char(c) if !control && !alt => chat.typed(now, service, c.encode_utf8(&mut [0; 4])),
            KeyCode::Up => chat.editor.earlier(),
            KeyCode::Down => chat.editor.later(),
            KeyCode::PageUp => chat.scroll_up(now, service, self.page),
            KeyCode::PageDown => chat.scroll_down(self.page),
            KeyCode::Esc => chat.scroll = 0,
            _ => edit(&mut chat.editor, key, control),
        }
    }

    /// Something of the protocol happened.
    pub(crate) fn handle_event(&mut self, now: Instant, service: &mut ClientService, event: &Event) {
        if let (Event::Message { entry, .. }, Some(me)) = (event, service.me())
            && entry.from != me.id
            && entry.text().is_some_and(|text| mentions(text, &name_key(&me.name)))
        {
            self.mentions += 1;
            self.bell = true;
        }
        match event {
            Event::LoggedIn { ticket, .. } => {
                if ticket.is_some() {
                    self.pending = None;
                    self.chat = Chat::default();
                }
                self.face = Face::Chat;
            }
            Event::LoggedOut { why, .. } => {
                let name = Some(self.form.name.text().to_owned());
                self.form = LoginForm::new(name, Some(why.clone()));
                self.chat = Chat::default();
                self.pending = None;
                self.face = Face::Form;
            }
            _ if self.face == Face::Form => self.handle_form_event(service, event),
            _ => self.chat.handle(now, service, event),
        }
    }

    fn handle_form_event(&mut self, service: &mut ClientService, event: &Event) {
        match event {
            Event::Registered { ticket, .. } if self.waits_for(*ticket) => {
                let Some((_, Some(filled))) = self.pending.take() else { return };
                let (name, password) = (filled.name.clone(), filled.password.clone());
                match service.login(Credential::Password { name, password }) {
                    Ok(ticket) => self.pending = Some((ticket, Some(filled))),
                    Err(refusal) => self.form.back(Some(refusal.to_string())),
                }
            }
            Event::Refused { ticket, refusal } if self.waits_for(*ticket) => {
                let by_token = self.pending.take().is_some_and(|(_, filled)| filled.is_none());
                let why = if by_token && refusal.code == "unauthorized" {
                    "the remembered login is no longer valid".into()
                } else {
                    refusal.to_string()
                };
                self.form.back(Some(why));
            }
            _ => {}
        }
    }

    fn waits_for(&self, ticket: Ticket) -> bool {
        self.pending.as_ref().is_some_and(|(pending, _)| *pending == ticket)
    }
}

/// The keys that every input line knows.
fn edit(editor: &mut super::line_editor::LineEditor, key: KeyEvent, control: bool) {
    match (key.code, control) {
        (KeyCode::Char('u'), true) => editor.delete_to_start(),
        (KeyCode::Char('k'), true) => editor.delete_to_end(),
        (KeyCode::Char('w'), true) => editor.delete_word(),
        (KeyCode::Home, _) | (KeyCode::Char('a'), true) => editor.home(),
        (KeyCode::End, _) | (KeyCode::Char('e'), true) => editor.end(),
        (KeyCode::Char(c), false) => editor.insert(c.encode_utf8(&mut [0; 4])),
        (KeyCode::Left, _) => editor.left(),
        (KeyCode::Right, _) => editor.right(),
        (KeyCode::Backspace, _) => editor.backspace(),
        (KeyCode::Delete, _) => editor.delete(),
        _ => {}
    }
}
