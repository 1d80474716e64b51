//! The screen drawn into memory: at 80x24 and at 40x12, with wide and with harmful characters.

use std::time::{Duration, Instant};

use chrono::FixedOffset;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEventKind};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use schema::reply::Push;

use super::app::App;
use super::safe_text::width;
use super::theme::{Palette, Theme, Zone};
use super::view;
use crate::client::Link;
use crate::service::model::{Model, seq, user_id};
use crate::service::{Action, ClientService};

/// 2023-11-14, a Tuesday, 22:13 UTC.
const TUESDAY: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

/// An app, its service, and a server in memory.
pub(super) struct Stage {
    pub(super) app: App,
    pub(super) service: ClientService,
    pub(super) server: Model,
    pub(super) link: Link,
    pub(super) now: Instant,
}

impl Stage {
    pub(super) fn new() -> Self {
        let zone = Zone::Fixed(FixedOffset::east_opt(0).unwrap());
        let theme = Theme { palette: Palette::OnDark, zone };
        let mut stage = Self {
            app: App::new("127.0.0.1:6000".into(), None, theme),
            service: ClientService::new("run"),
            server: Model::at(TUESDAY),
            link: Link::Up,
            now: Instant::now(),
        };
        stage.server.connect();
        stage.service.handle_connected();
        stage.settle();
        stage
    }

    /// Logged in as amy, by the form.
    pub(super) fn chatting() -> Self {
        let mut stage = Self::new();
        stage.log_in();
        stage
    }

    pub(super) fn log_in(&mut self) {
        self.keys("l");
        self.line("amy");
        self.line("correct horse");
    }

    /// Reads what the server has said, without letting time pass.
    pub(super) fn see_lines(&mut self) {
        while let Some(line) = self.server.out.pop_front() {
            self.service.handle_line(self.now, &line);
        }
        while let Some(event) = self.service.take_event() {
            self.app.handle_event(self.now, &mut self.service, &event);
        }
    }

    /// Lets lines go both ways until nothing more comes.
    pub(super) fn settle(&mut self) {
        for _ in 0..50 {
            while let Some(action) = self.service.take_action() {
                if let Action::Line(line) = action {
                    self.server.hear(&line);
                }
            }
            for turn in 0..16 {
                self.server.push_one(turn);
            }
            self.see_lines();
            self.now += Duration::from_millis(100);
            self.service.handle_time(self.now);
        }
    }

    pub(super) fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) {
        self.app.handle_key(self.now, &mut self.service, KeyEvent::new(code, modifiers));
    }

    pub(super) fn keys(&mut self, text: &str) {
        text.chars().for_each(|c| self.key(KeyCode::Char(c), KeyModifiers::NONE));
    }

    pub(super) fn line(&mut self, text: &str) {
        self.keys(text);
        self.key(KeyCode::Enter, KeyModifiers::NONE);
        self.settle();
    }

    pub(super) fn hear(&mut self, from: &str, text: &str) {
        self.server.peer_sends(from, text);
        self.settle();
    }

    /// The screen as rows of text, without what is behind their ends.
    pub(super) fn screen(&mut self, columns: u16, rows: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view::draw(frame, &mut self.app, &self.service, &self.link, self.now)).unwrap();
        let buffer = terminal.backend().buffer();
        let mut screen = Vec::new();
        for y in 0..rows {
            let mut row = String::new();
            let mut x = 0;
            while x < columns {
                let symbol = buffer[(x, y)].symbol();
                assert!(!symbol.contains(char::is_control), "{symbol:?} on the screen");
                row.push_str(symbol);
                x += u16::try_from(width(symbol)).unwrap().max(1);
            }
            assert!(x <= columns, "a character stands half outside: {row:?}");
            screen.push(row.trim_end().to_owned());
        }
        screen
    }

    pub(super) fn at_80(&mut self) -> String {
        self.screen(80, 24).join("\n")
    }

    pub(super) fn at_40(&mut self) -> String {
        self.screen(40, 12).join("\n")
    }
}

#[test]
fn the_form_asks_and_never_shows_a_password() {
    let mut stage = Stage::new();
    let screen = stage.at_40();
    assert!(screen.contains("l  log in") && screen.contains("r  register"), "{screen}");
    assert!(screen.contains("connected, not logged in"), "{screen}");
    stage.keys("r");
    stage.line("amy");
    stage.keys("correct horse");
    for screen in [stage.at_40(), stage.at_80()] {
        assert!(screen.contains("Password (not shown):"), "{screen}");
        assert!(!screen.contains("horse") && !screen.contains("•") && !screen.contains('*'), "{screen}");
    }
}

#[test]
fn two_people_chat_at_80_columns() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "hi amy");
    stage.line("hello yourself");
    stage.keys("and wh");
    let rows = stage.screen(80, 24);
    let screen = rows.join("\n");
    assert_eq!(rows[0], " bob", "{screen}");
    assert!(rows[1].starts_with(" bob"), "the list is on the left\n{screen}");
    assert!(screen.contains("──── Tuesday, 14 November 2023 ────"), "{screen}");
    assert!(screen.contains("22:13 bob: hi amy"), "{screen}");
    assert!(screen.contains("22:13 amy: hello yourself [sent]"), "{screen}");
    assert_eq!(rows[22], " online as amy", "{screen}");
    assert_eq!(rows[23], "bob> and wh", "{screen}");
    let conv = stage.service.conversation_with("bob").unwrap().conv;
    stage.server.push(&Push::Delivered { conv, user: user_id("bob"), seq: seq(2) });
    stage.settle();
    assert!(stage.at_80().contains("hello yourself [delivered]"));
    stage.server.push(&Push::Read { conv, user: user_id("bob"), seq: seq(2) });
    stage.settle();
    assert!(stage.at_80().contains("hello yourself [read]"));
}

#[test]
fn it_works_at_40_columns_and_12_rows() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "a message that is longer than one row of this little screen is wide");
    stage.hear("carol", "psst");
    let rows = stage.screen(40, 12);
    let screen = rows.join("\n");
    assert_eq!(rows[0], " bob", "{screen}");
    assert!(screen.contains("22:13 bob: a message that is longer than"), "{screen}");
    assert!(screen.contains("one row of this little screen"), "{screen}");
    assert_eq!(rows[10], " online as amy · unread: carol (1)", "{screen}");
    assert_eq!(rows[11], "bob>", "{screen}");
    assert!(!screen.contains('│'), "no room for a list");
}

#[test]
fn sizes_that_no_one_can_read_do_no_harm() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "漢字 hello");
    stage.keys("漢字漢字漢字漢字");
    for columns in 1..30 {
        for rows in 1..8 {
            stage.screen(columns, rows);
        }
    }
}

#[test]
fn control_characters_are_shown_not_obeyed() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "red \u{1b}[31malert\u{7}\u{9b}2J \u{202e}drawkcab\r\u{8}");
    let screen = stage.at_80();
    assert!(screen.contains("red ␛[31malert␇<009B>2J <202E>drawkcab␍␈"), "{screen}");
    stage.hear("bob", "two\nlines\tand a tab");
    let screen = stage.at_80();
    assert!(screen.contains("bob: two\n"), "{screen}");
    assert!(screen.contains("lines    and a tab"), "{screen}");
}

#[test]
fn wide_characters_take_their_columns() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字 and 👩\u{200d}🚀 e\u{301} مرحبا");
    for screen in [stage.at_40(), stage.at_80()] {
        assert!(
            screen.contains("漢字") && screen.contains("👩\u{200d}🚀") && screen.contains("e\u{301}"),
            "{screen}"
        );
    }
    stage.keys("漢字");
    let mut terminal = Terminal::new(TestBackend::new(40, 12)).unwrap();
    terminal.draw(|frame| view::draw(frame, &mut stage.app, &stage.service, &stage.link, stage.now)).unwrap();
    // `bob> ` and two characters of two columns.
    terminal.backend_mut().assert_cursor_position((9, 11));
}

#[test]
fn what_is_being_typed_stays_while_messages_arrive() {
    let mut stage = Stage::chatting();
    stage.line("/to bob");
    stage.keys("half a sen");
    stage.hear("bob", "first");
    stage.keys("ten");
    stage.hear("bob", "second");
    stage.keys("ce");
    let rows = stage.screen(80, 24);
    assert_eq!(rows[23], "bob> half a sentence");
    assert!(rows.join("\n").contains("bob: second"));
    stage.key(KeyCode::Enter, KeyModifiers::NONE);
    stage.settle();
    assert!(stage.at_80().contains("amy: half a sentence [sent]"));
    assert!(stage.server.typings > 0, "bob was told");
}

#[test]
fn a_lost_connection_is_seen_and_what_is_written_then_is_sent_later() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "hi");
    stage.server.disconnect(true);
    stage.service.handle_lost();
    let retry_at = Some(stage.now + Duration::from_millis(2_500));
    stage.link = Link::Down { why: "connection refused".into(), retry_at };
    stage.keys("are you there?");
    stage.key(KeyCode::Enter, KeyModifiers::NONE);
    for screen in [stage.at_40(), stage.at_80()] {
        assert!(screen.contains("reconnecting in 3 s (connection"), "{screen}");
        assert!(screen.contains("are you there? [sending]"), "{screen}");
    }
    stage.server.connect();
    stage.service.handle_connected();
    stage.link = Link::Up;
    stage.settle();
    let screen = stage.at_80();
    assert!(screen.contains("are you there? [sent]") && screen.contains("online as amy"), "{screen}");
    assert_eq!(screen.matches("are you there?").count(), 1, "{screen}");
}

#[test]
fn commands_answer_in_the_pane() {
    let mut stage = Stage::chatting();
    assert!(stage.at_80().contains("/to NAME opens a conversation"));
    stage.line("hello?");
    assert!(stage.at_80().contains("* no conversation is open"));
    stage.line("/to nobody");
    assert!(stage.at_80().contains("* there is nobody by that name"));
    stage.line("/who carol");
    assert!(stage.at_80().contains("* carol is online"));
    stage.line("/msg carol hi");
    assert!(stage.at_80().contains("* sent to carol: hi"));
    stage.line("/list");
    assert!(stage.at_80().contains("* carol: 1 messages"));
    stage.line("/dance");
    assert!(stage.at_80().contains("* no such command: /dance"));
    stage.line("/help");
    let help = stage.screen(80, 70).join("\n");
    assert!(help.contains("* /to NAME, /to #GROUP open a conversation; what you"), "{help}");
    stage.line("/to carol");
    let screen = stage.at_80();
    assert!(screen.contains("22:13 amy: hi [sent]") && !screen.contains("/dance"), "{screen}");
}

#[test]
fn history_is_loaded_when_one_scrolls_up() {
    let mut stage = Stage::new();
    for n in 1..=120 {
        stage.server.now_ms += if n == 60 { 24 * HOUR } else { 0 };
        stage.server.peer_sends("bob", &format!("message {n}"));
    }
    stage.server.delivered("bob", 110);
    stage.keys("l");
    stage.line("amy");
    stage.line("correct horse");
    let screen = stage.at_40();
    assert!(screen.contains("message 120") && !screen.contains("message 105\n"), "{screen}");
    for _ in 0..20 {
        stage.key(KeyCode::PageUp, KeyModifiers::NONE);
        stage.settle();
        stage.at_40();
    }
    let screen = stage.at_40();
    assert!(screen.contains("message 1\n") && screen.contains("scrolled up"), "{screen}");
    assert!(screen.contains("Tuesday, 14 November 2023"), "{screen}");
    stage.key(KeyCode::Esc, KeyModifiers::NONE);
    assert!(stage.at_40().contains("message 120"));
}

#[test]
fn the_order_is_the_servers_whatever_came_first() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "one");
    for n in 2..=40 {
        stage.server.peer_sends("bob", &format!("number {n}."));
    }
    // The answer to this comes before most of the above do.
    stage.line("last");
    let rows = stage.screen(80, 60);
    let at = |text: &str| {
        rows.iter().position(|row| row.contains(text)).unwrap_or_else(|| panic!("{text}: {rows:#?}"))
    };
    assert!(at("bob: one") < at("number 2.") && at("number 39.") < at("number 40."));
    assert!(at("number 40.") < at("amy: last"));
}

#[test]
fn conversations_are_changed_by_keys() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "hi from bob");
    stage.hear("carol", "hi from carol");
    assert_eq!(stage.screen(80, 24)[23], "bob>");
    assert!(stage.at_80().contains(" carol (1)"));
    stage.key(KeyCode::Char('n'), KeyModifiers::CONTROL);
    stage.settle();
    let screen = stage.at_80();
    assert!(screen.contains("carol: hi from carol") && !screen.contains("(1)"), "{screen}");
    stage.key(KeyCode::Char('p'), KeyModifiers::CONTROL);
    assert_eq!(stage.screen(80, 24)[23], "bob>");
}

#[test]
fn a_scrolled_pane_stays_where_it_is_when_messages_arrive() {
    let mut stage = Stage::chatting();
    for n in 1..=60 {
        stage.hear("bob", &format!("message {n}."));
    }
    stage.at_40();
    stage.key(KeyCode::PageUp, KeyModifiers::NONE);
    let before = stage.screen(40, 12);
    stage.hear("bob", "something new");
    let after = stage.screen(40, 12);
    assert_eq!(before[1..10], after[1..10]);
}

#[test]
fn control_c_and_quit_end_it() {
    let mut stage = Stage::chatting();
    stage.line("/quit");
    assert!(stage.app.is_done());
    let mut stage = Stage::new();
    stage.key(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(stage.app.is_done());
}

#[test]
fn a_mention_rings_once_and_is_counted_in_the_title_until_a_key_is_pressed() {
    let mut stage = Stage::chatting();
    stage.hear("bob", "has anybody seen amy?");
    assert!(!stage.app.take_bell());
    assert_eq!(stage.app.title(&stage.service), "chatcli · amy");
    stage.hear("bob", "@Amy, are you there?");
    assert!(stage.app.take_bell() && !stage.app.take_bell());
    stage.hear("carol", "@amy!");
    assert_eq!(stage.app.title(&stage.service), "(2) chatcli · amy");
    stage.line("I talk to @amy, that is to myself");
    assert_eq!(stage.app.title(&stage.service), "chatcli · amy");
    stage.app.take_bell();
    stage.settle();
    assert!(!stage.app.take_bell());
}

#[test]
fn a_password_is_changed_without_being_shown() {
    let mut stage = Stage::chatting();
    stage.line("/password");
    for (prompt, text) in [
        ("Old password (", "correct horse"),
        ("New password (", "battery staple"),
        ("again", "battery staple"),
    ] {
        stage.keys(text);
        let screen = stage.at_80();
        assert!(
            screen.contains(prompt) && !screen.contains("horse") && !screen.contains("staple"),
            "{screen}"
        );
        stage.line("");
    }
    assert!(stage.at_80().contains("* the password is changed"), "{}", stage.at_80());
    stage.key(KeyCode::Up, KeyModifiers::NONE);
    assert_eq!(stage.app.chat.editor.text(), "/password", "no password is remembered");
    stage.key(KeyCode::Char('u'), KeyModifiers::CONTROL);
    stage.line("/password");
    stage.key(KeyCode::Esc, KeyModifiers::NONE);
    assert_eq!(stage.screen(80, 24)[23], ">");
}

#[test]
fn the_wheel_scrolls() {
    let mut stage = Stage::chatting();
    for n in 1..=40 {
        stage.hear("bob", &format!("message {n}."));
    }
    assert!(stage.at_40().contains("message 40."));
    stage.app.handle_mouse(stage.now, &mut stage.service, MouseEventKind::ScrollUp);
    let screen = stage.at_40();
    assert!(screen.contains("message 37.") && !screen.contains("message 38."), "{screen}");
    stage.app.handle_mouse(stage.now, &mut stage.service, MouseEventKind::ScrollDown);
    assert!(stage.at_40().contains("message 40."));
}

#[test]
fn without_colours_nothing_has_one() {
    let mut stage = Stage::chatting();
    stage.app.theme.palette = Palette::Plain;
    stage.hear("bob", "@amy hello");
    stage.line("/dance");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let coloured = |stage: &mut Stage, terminal: &mut Terminal<TestBackend>| {
        terminal
            .draw(|frame| view::draw(frame, &mut stage.app, &stage.service, &stage.link, stage.now))
            .unwrap();
        terminal.backend().buffer().content().iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(coloured(&mut stage, &mut terminal), 0);
    stage.app.theme.palette = Palette::OnLight;
    assert!(coloured(&mut stage, &mut terminal) > 0);
}

#[test]
fn a_paste_of_many_lines_is_one_message() {
    let mut stage = Stage::chatting();
    stage.line("/to bob");
    stage.app.handle_paste(stage.now, &mut stage.service, "first line\r\nsecond line\nthird line");
    assert_eq!(stage.screen(80, 24)[23], "bob> first line⏎second line⏎third line");
    stage.line("");
    let conv = stage.service.conversation_with("bob").unwrap();
    let texts: Vec<&str> = conv.entries().map(|entry| entry.text().unwrap().as_ref()).collect();
    assert_eq!(texts, ["first line\nsecond line\nthird line"]);
}
