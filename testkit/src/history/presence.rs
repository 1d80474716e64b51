//! What must hold of who is said to be online.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{About, Found, History, Kind, UserNumber, What};

/// So long after a coming, a going, or the end of a fault, what is said must be true.
pub const PRESENCE_MAX: Duration = Duration::from_secs(10);

/// What is wrong, and how many looks could be judged.
pub(super) fn violations(history: &History) -> (Vec<Found>, usize) {
    let sessions = sessions(history);
    let mut judged = 0;
    let mut found = Vec::new();
    for client in &history.clients {
        let mut at_node = "";
        for event in &client.events {
            if let What::Connected { node } = &event.what {
                at_node = node;
            }
            let What::Looked { user, online } = event.what else { continue };
            let since = event.at.saturating_sub(PRESENCE_MAX);
            let is_faulty = |fault: &super::Fault| fault.from <= event.at && fault.until >= since;
            if event.at < PRESENCE_MAX || history.faults.iter().any(is_faulty) {
                continue;
            }
            let theirs = sessions.get(&user).map_or(&[][..], Vec::as_slice);
            let all_along = theirs.iter().any(|(from, until)| *from <= since && *until >= event.at);
            let not_at_all = theirs.iter().all(|(from, until)| *until < since || *from > event.at);
            if !all_along && !not_at_all {
                continue;
            }
            judged += 1;
            if online != all_along {
                let (said, truth) =
                    if online { ("online", "not been there") } else { ("offline", "been there") };
                found.push(Found {
                    kind: Kind::WrongPresence,
                    at: event.at,
                    headline: format!(
                        "{} was told by {at_node:?} that user {user} is {said}, who has {truth} for the last {PRESENCE_MAX:?}",
                        client.name
                    ),
                    about: About { users: BTreeSet::from([user]), ..About::default() },
                });
            }
        }
    }
    (found, judged)
}

/// When each user was logged in, by any client.
fn sessions(history: &History) -> BTreeMap<UserNumber, Vec<(Duration, Duration)>> {
    let mut all: BTreeMap<UserNumber, Vec<(Duration, Duration)>> = BTreeMap::new();
    for client in &history.clients {
        let mut since = None;
        let theirs = all.entry(client.user).or_default();
        for event in &client.events {
            match event.what {
                What::Began { .. } => since = Some(event.at),
                What::Ended { .. } => theirs.extend(since.take().map(|since| (since, event.at))),
                _ => {}
            }
        }
        theirs.extend(since.map(|since| (since, Duration::MAX)));
    }
    all
}
