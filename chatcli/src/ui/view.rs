//! Drawing: the form, or the chat with its list, pane, status and input.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use schema::UserId;
use schema::reply::Kind;

use super::app::{App, Face};
use super::login_form::{Field, LoginForm};
use super::pane::Pane;
use super::safe_text::{safe_line, shorten, width};
use crate::client::Link;
use crate::service::{ClientService, Conversation, Phase, To};

/// From so many columns on there is room for the list of conversations.
const WIDE: u16 = 72;

/// The columns of the list.
const LIST: u16 = 22;

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App, service: &ClientService, link: &Link, now: Instant) {
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1), Constraint::Length(1)];
    let [title, middle, status, input] = Layout::vertical(rows).areas(frame.area());
    let status_text = status_text(app, service, link, now);
    let columns = usize::from(status.width);
    bar(frame, status, &format!(" {}", shorten(&status_text, columns.saturating_sub(1))));
    match app.face {
        Face::Form => {
            bar(frame, title, &format!(" chatcli · {}", safe_line(&app.address)));
            draw_form(frame, middle, input, &app.form);
        }
        Face::Chat => {
            bar(frame, title, &format!(" {}", title_text(app, service, now, columns.saturating_sub(1))));
            draw_chat(frame, middle, input, app, service);
        }
    }
}

/// A reversed line over the whole width.
fn bar(frame: &mut Frame<'_>, area: Rect, text: &str) {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(Line::raw(text.to_owned())).style(style), area);
}

fn title_text(app: &App, service: &ClientService, now: Instant, columns: usize) -> String {
    let Some(label) = app.chat.label(service) else { return "chatcli".into() };
    let state = match (app.chat.open(), app.chat.conversation(service)) {
        (Some(To::User(name)), _) => match service.presence(name) {
            Some(true) => " · online".into(),
            Some(false) => " · offline".into(),
            None => String::new(),
        },
        (_, Some(group)) if group.gone => " · you are not a member".into(),
        (_, Some(group)) => match group.member_count() {
            Some(1) => " · only you".into(),
            Some(count) => format!(" · {count} members"),
            None => String::new(),
        },
        _ => String::new(),
    };
    let above = if app.chat.scroll > 0 { "  (scrolled up: PgDn)" } else { "" };
    let (label, typing) = (safe_line(&label), typing_text(app, service, now));
    let full = format!("{label}{state}{typing}{above}");
    // Who is typing matters more than how many there are.
    if width(&full) <= columns { full } else { format!("{label}{typing}{above}") }
}

/// Who is typing; in a pair there is but one who can.
fn typing_text(app: &App, service: &ClientService, now: Instant) -> String {
    let users = app.chat.who_types(service, now);
    let name = |user: &UserId| service.name_of(*user).map_or_else(|| "somebody".into(), safe_line);
    match (app.chat.open(), users.as_slice()) {
        (_, []) => String::new(),
        (Some(To::User(_)), _) => " is typing…".into(),
        (_, [one]) => format!(" · {} is typing…", name(one)),
        (_, [one, other]) => format!(" · {} and {} are typing…", name(one), name(other)),
        _ => " · several are typing…".into(),
    }
}

/// The state of the connection, and what is unread elsewhere.
fn status_text(app: &App, service: &ClientService, link: &Link, now: Instant) -> String {
    let name = || service.me().map_or_else(String::new, |me| safe_line(&me.name));
    let state = match (link, service.phase()) {
        (Link::Connecting, _) => format!("connecting to {}", safe_line(&app.address)),
        (Link::Down { why, retry_at: Some(at) }, _) => {
            // Rounded up: "in 0 s" is never seen for long.
            let seconds = at.saturating_duration_since(now).as_millis().div_ceil(1_000);
            format!("reconnecting in {seconds} s ({})", safe_line(why))
        }
        (Link::Down { why, retry_at: None }, _) => format!("not connected ({})", safe_line(why)),
        (Link::Up, Phase::Offline | Phase::Greeting) => "connected, waiting for the server".into(),
        (Link::Up, Phase::Anonymous) => "connected, not logged in".into(),
        (Link::Up, Phase::LoggingIn) => "logging in".into(),
        (Link::Up, Phase::Preparing) => format!("catching up as {}", name()),
        (Link::Up, Phase::Online) => format!("online as {}", name()),
    };
    let open = app.chat.conversation(service).map(|open| open.conv);
    let unread: Vec<String> = service
        .conversations()
        .filter(|other| other.unread > 0 && Some(other.conv) != open)
        .map(|other| format!("{} ({})", safe_line(&other.label()), other.unread))
        .collect();
    if unread.is_empty() { state } else { format!("{state} · unread: {}", unread.join(", ")) }
}

fn draw_chat(frame: &mut Frame<'_>, middle: Rect, input: Rect, app: &mut App, service: &ClientService) {
    let pane = if middle.width >= WIDE {
        let columns = [Constraint::Length(LIST), Constraint::Length(2), Constraint::Min(1)];
        let [list, line, pane] = Layout::horizontal(columns).areas(middle);
        draw_list(frame, list, app, service);
        let rule = vec![Line::styled("│", app.theme.dim()); usize::from(line.height)];
        frame.render_widget(Paragraph::new(rule), line);
        pane
    } else {
        middle
    };
    let (columns, height) = (usize::from(pane.width), usize::from(pane.height));
    app.page = height.saturating_sub(1).max(1);
    let sight = Pane::sight(&app.chat, service, app.theme, columns, height);
    app.chat.scroll = sight.scroll;
    app.chat.top_seen = sight.top_seen;
    app.chat.last_drawn = sight.last;
    let mut rows = sight.rows;
    if rows.is_empty() {
        rows = welcome(app, service);
    }
    // The newest stands at the bottom.
    let above = height.saturating_sub(rows.len());
    let area = Rect {
        y: pane.y + u16::try_from(above).unwrap_or(0),
        height: pane.height - u16::try_from(above).unwrap_or(0),
        ..pane
    };
    frame.render_widget(Paragraph::new(rows), area);
    let label = app.chat.label(service).unwrap_or_default();
    draw_input(frame, input, &safe_line(&label), app);
}

/// What an empty pane says.
fn welcome(app: &App, service: &ClientService) -> Vec<Line<'static>> {
    let dim = app.theme.dim();
    if app.chat.open().is_some() {
        return vec![Line::styled("no messages yet: write the first", dim)];
    }
    let mut rows: Vec<Line<'static>> =
        service.conversations().map(|found| list_row(app, service, found, 40, dim)).collect();
    rows.push(Line::styled("/to NAME opens a conversation · /help", dim));
    rows
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, app: &App, service: &ClientService) {
    let open = app.chat.conversation(service).map(|open| open.conv);
    let height = usize::from(area.height);
    let at = service.conversations().position(|found| Some(found.conv) == open).unwrap_or(0);
    let skip = (at + 1).saturating_sub(height);
    let rows: Vec<Line<'static>> = service
        .conversations()
        .skip(skip)
        .take(height)
        .map(|found| {
            let style = if Some(found.conv) == open {
                Style::new().add_modifier(Modifier::REVERSED)
            } else {
                Style::new()
            };
            list_row(app, service, found, usize::from(area.width), style)
        })
        .collect();
    frame.render_widget(Paragraph::new(rows), area);
}

fn list_row(
    app: &App,
    service: &ClientService,
    found: &Conversation,
    columns: usize,
    style: Style,
) -> Line<'static> {
    let unread = if found.unread > 0 { format!(" ({})", found.unread) } else { String::new() };
    let room = columns.saturating_sub(width(&unread) + 1);
    let style = if found.unread > 0 { style.add_modifier(Modifier::BOLD) } else { style };
    let online = found.kind == Kind::Direct && service.presence(&found.name) == Some(true);
    let sign =
        if online { Span::styled("•", style.patch(app.theme.online())) } else { Span::styled(" ", style) };
    Line::from(vec![
        sign,
        Span::styled(format!("{}{unread}", shorten(&safe_line(&found.label()), room)), style),
    ])
}

fn draw_input(frame: &mut Frame<'_>, area: Rect, label: &str, app: &App) {
    let columns = usize::from(area.width);
    if let Some(entry) = &app.chat.password {
        // Not even its length is shown.
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Paragraph::new(Line::styled(entry.prompt(), bold)), area);
        return place_cursor(frame, area, width(entry.prompt()));
    }
    let prompt = format!("{}> ", shorten(label, (columns / 3).saturating_sub(2)));
    let prompt_width = width(&prompt);
    let (text, cursor) = app.chat.editor.view(columns.saturating_sub(prompt_width));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let line = Line::from(vec![Span::styled(prompt, bold), Span::raw(text)]);
    frame.render_widget(Paragraph::new(line), area);
    place_cursor(frame, area, prompt_width + cursor);
}

fn place_cursor(frame: &mut Frame<'_>, area: Rect, column: usize) {
    let column = u16::try_from(column).unwrap_or(u16::MAX).min(area.width.saturating_sub(1));
    frame.set_cursor_position(Position { x: area.x + column, y: area.y });
}

fn draw_form(frame: &mut Frame<'_>, area: Rect, input: Rect, form: &LoginForm) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut rows: Vec<Line<'static>> = Vec::new();
    let what = if form.register { "Register" } else { "Log in" };
    match form.field {
        Field::Choice => {
            for (key, what) in [("l", "log in"), ("r", "register"), ("q", "quit")] {
                rows.push(Line::from(vec![Span::styled(format!(" {key}  "), bold), Span::raw(what)]));
            }
        }
        Field::Busy => rows.push(Line::raw(format!(" {what} as {} …", safe_line(form.name.text())))),
        _ => {
            rows.push(Line::styled(format!(" {what}"), bold));
            rows.push(Line::raw(" Enter goes on, Esc goes back"));
        }
    }
    if let Some(message) = &form.message {
        rows.push(Line::raw(""));
        let columns = usize::from(area.width).saturating_sub(2);
        for row in super::safe_text::wrap(&safe_line(message), columns, columns) {
            rows.push(Line::styled(format!(" {row}"), bold));
        }
    }
    frame.render_widget(Paragraph::new(rows), area);
    draw_form_input(frame, input, form);
}

fn draw_form_input(frame: &mut Frame<'_>, area: Rect, form: &LoginForm) {
    let columns = usize::from(area.width);
    let (prompt, text, cursor) = match form.field {
        Field::Choice | Field::Busy => return,
        Field::Name => {
            let (text, cursor) = form.name.view(columns.saturating_sub(6));
            ("Name: ", text, cursor)
        }
        // Not even its length is shown.
        Field::Password => ("Password (not shown): ", String::new(), 0),
        Field::Again => ("Password again (not shown): ", String::new(), 0),
    };
    let line =
        Line::from(vec![Span::styled(prompt, Style::new().add_modifier(Modifier::BOLD)), Span::raw(text)]);
    frame.render_widget(Paragraph::new(line), area);
    place_cursor(frame, area, width(prompt) + cursor);
}
