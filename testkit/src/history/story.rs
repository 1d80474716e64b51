//! A violation's story: what all clients wrote down about it.

use std::fmt::Write as _;
use std::time::Duration;

use super::{About, ClientLog, Entry, Event, Found, History, What};

/// Lines of a story at most; the middle of a longer one is left out.
const LINES_MAX: usize = 160;

/// All that belongs to `found`, in order of time.
pub(super) fn tell(history: &History, found: &Found) -> String {
    let mut lines: Vec<(Duration, String)> = Vec::new();
    for fault in &history.faults {
        lines.push((fault.from, format!("---- fault begins: {}", fault.what)));
        lines.push((fault.until, format!("---- fault is over: {}", fault.what)));
    }
    for client in &history.clients {
        let concerned = found.about.users.contains(&client.user);
        for event in &client.events {
            if let Some(text) = line(client, event, &found.about, concerned) {
                lines.push((event.at, text));
            }
        }
    }
    lines.push((found.at, format!(">>>> {}", found.headline)));
    lines.sort();
    let left_out = lines.len().saturating_sub(LINES_MAX);
    let mut story = String::new();
    for (n, (at, line)) in lines.iter().enumerate() {
        if left_out > 0 && n == LINES_MAX / 2 {
            let _ = writeln!(story, "  … {left_out} lines …");
        }
        if n < LINES_MAX / 2 || n >= LINES_MAX / 2 + left_out {
            let _ = writeln!(story, "{:>10.3} s  {line}", at.as_secs_f64());
        }
    }
    story
}

fn line(client: &ClientLog, event: &Event, about: &About, coming_and_going: bool) -> Option<String> {
    let place = |conv, seq| about.conv == Some(conv) && about.seq == Some(seq);
    let named = |text: &str| about.text.as_deref() == Some(text);
    let ours = |conv, entry: &Entry| place(conv, entry.seq) || named(&entry.text);
    let said = match &event.what {
        What::Connected { node } if coming_and_going => format!("connected to {node}"),
        What::Began { cursors } if coming_and_going => match about.conv {
            Some(conv) => {
                format!(
                    "logged in; its stream of {conv} starts at {}",
                    cursors.get(&conv).copied().unwrap_or(0)
                )
            }
            None => "logged in".to_owned(),
        },
        What::Ended { why } if coming_and_going => format!("ended: {why}"),
        What::Settled if coming_and_going => "settled".to_owned(),
        What::TokenRefused { code } if coming_and_going => format!("its token was answered `{code}`"),
        What::Sent { conv, text } if named(text) => format!("sent {text:?} to {conv}"),
        What::Acked { conv, text, seq, duplicate } if named(text) || place(*conv, *seq) => {
            let more = if *duplicate { ", duplicate" } else { "" };
            format!("ok for {text:?}: conversation {conv} seq {seq}{more}")
        }
        What::Failed { text, code, .. } if named(text) => format!("error `{code}` for {text:?}"),
        What::Pushed { conv, entry } if ours(*conv, entry) => {
            format!("got conversation {conv} seq {}: {:?} of {}", entry.seq, entry.text, entry.from)
        }
        What::Looked { user, online } if about.users.contains(user) && about.conv.is_none() => {
            format!("was told: {user} is {}", if *online { "online" } else { "offline" })
        }
        What::Fetched { conv, entries } if about.conv == Some(*conv) => {
            let hit = entries.iter().find(|entry| ours(*conv, entry));
            let last = entries.last().map_or(0, |entry| entry.seq);
            match hit {
                Some(entry) => format!("fetched {conv} up to {last}: at {} {:?}", entry.seq, entry.text),
                None => format!("fetched {conv} up to {last}, without it"),
            }
        }
        _ => return None,
    };
    Some(format!("{:<16} {said}", format!("{}({})", client.name, client.user)))
}
