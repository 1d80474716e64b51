//! Random requests in random batches against a model that is too simple to be wrong.

use std::collections::HashMap;

use crate::common::*;
use proptest::prelude::*;
use schema::{ConvId, UserId};
use store::dao::{ConversationDao, CursorDao};
use store::{CursorError, CursorWrite, DbConfig, SendError, SendRequest, Sent};

const USERS: u64 = 4;
/// The last one does not exist.
const CONVS: [(u64, u64); 4] = [(1, 2), (2, 3), (1, 4), (0, 0)];

#[derive(Clone, Debug)]
enum Step {
    Send {
        sender: u64,
        conv: usize,
        client_id: Option<u8>,
        text: u8,
    },
    Cursor {
        user: u64,
        conv: usize,
        delivered: Option<u64>,
        read: Option<u64>,
    },
    /// What was queued since the last one is one batch, and the tables are looked at.
    Flush {
        reopen: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let send = (1..=USERS, 0..CONVS.len(), proptest::option::of(0..4_u8), 0..3_u8)
        .prop_map(|(sender, conv, client_id, text)| Step::Send { sender, conv, client_id, text });
    let place = || proptest::option::of(0..20_u64);
    let cursor = (1..=USERS, 0..CONVS.len(), place(), place())
        .prop_map(|(user, conv, delivered, read)| Step::Cursor { user, conv, delivered, read });
    prop_oneof![12 => send, 4 => cursor, 1 => any::<bool>().prop_map(|reopen| Step::Flush { reopen })]
}

#[derive(Default)]
struct Model {
    texts: HashMap<usize, Vec<(u64, String)>>,
    client_ids: HashMap<(u64, usize, u8), u64>,
    cursors: HashMap<(u64, usize), (u64, u64)>,
    own: HashMap<(u64, usize), u64>,
}

#[derive(Debug, PartialEq)]
enum Expected {
    New(u64),
    Duplicate(u64),
    Refused(SendError),
}

impl Model {
    fn send(&mut self, sender: u64, conv: usize, client_id: Option<u8>, text: &str) -> Expected {
        let (lo, hi) = CONVS[conv];
        if lo == 0 {
            return Expected::Refused(SendError::NotFound);
        }
        if sender != lo && sender != hi {
            return Expected::Refused(SendError::Forbidden);
        }
        let texts = self.texts.entry(conv).or_default();
        let next = u64::try_from(texts.len()).unwrap() + 1;
        if let Some(client_id) = client_id {
            if let Some(seq) = self.client_ids.get(&(sender, conv, client_id)) {
                let same = texts[usize::try_from(*seq).unwrap() - 1].1 == text;
                return if same { Expected::Duplicate(*seq) } else { Expected::Refused(SendError::Conflict) };
            }
            self.client_ids.insert((sender, conv, client_id), next);
        }
        texts.push((sender, text.to_owned()));
        self.own.insert((sender, conv), next);
        Expected::New(next)
    }

    fn last(&self, conv: usize) -> u64 {
        self.texts.get(&conv).map_or(0, |texts| u64::try_from(texts.len()).unwrap())
    }

    fn cursor(
        &mut self,
        user: u64,
        conv: usize,
        delivered: Option<u64>,
        read: Option<u64>,
    ) -> Result<(), CursorError> {
        let (lo, hi) = CONVS[conv];
        if lo == 0 {
            return Err(CursorError::NotFound);
        }
        if user != lo && user != hi {
            return Err(CursorError::Forbidden);
        }
        let last = self.last(conv);
        let at = self.cursors.entry((user, conv)).or_default();
        at.0 = at.0.max(delivered.unwrap_or(0).min(last));
        at.1 = at.1.max(read.unwrap_or(0).min(last));
        Ok(())
    }
}

fn check(house: &Harness, model: &Model) {
    for (at, (lo, hi)) in CONVS.iter().enumerate().take(CONVS.len() - 1) {
        let id = conv_id(at);
        let entries = assert_gapless(house, id);
        let texts: Vec<_> = entries.into_iter().map(|e| (e.sender.get(), e.text().to_owned())).collect();
        assert_eq!(&texts, model.texts.get(&at).unwrap_or(&Vec::new()));
        let marks = house.store.read_wait(move |db| CursorDao::new(db).marks(id)).unwrap();
        for (user, mark) in [lo, hi].into_iter().zip(&marks) {
            let (delivered, read) = model.cursors.get(&(*user, at)).copied().unwrap_or_default();
            assert_eq!((mark.user.get(), mark.delivered.get(), mark.read.get()), (*user, delivered, read));
            let user_id = UserId::new(*user).unwrap();
            let list =
                house.store.read_wait(move |db| ConversationDao::new(db).list(user_id, None, 9)).unwrap();
            let unread = list.iter().find(|l| l.conv == id).map_or(0, |l| l.unread);
            let seen = read.max(model.own.get(&(*user, at)).copied().unwrap_or(0));
            assert_eq!(unread, model.last(at) - seen);
        }
    }
}

fn conv_id(at: usize) -> ConvId {
    ConvId::new(u64::try_from(at).unwrap() + 1).unwrap()
}

fn play(steps: &[Step], batch_max: usize) {
    let Some(place) = Place::new() else { return };
    let config = DbConfig { batch_max, ..place.config() };
    let mut house = Harness::with(&config);
    let users: Vec<_> = (1..=USERS).map(|at| house.user(&at.to_string())).collect();
    for (at, (lo, hi)) in CONVS.iter().enumerate().take(CONVS.len() - 1) {
        let pair = [lo, hi].map(|user| users[usize::try_from(*user).unwrap() - 1]);
        assert_eq!(house.direct(pair[0], pair[1]), conv_id(at));
    }
    let mut model = Model::default();
    let (mut expected, mut cursors) = (Vec::new(), Vec::new());
    let mut hold = None;
    for step in steps.iter().chain([&Step::Flush { reopen: true }]) {
        match step {
            Step::Send { sender, conv, client_id, text } => {
                hold.get_or_insert_with(|| house.stop_writer());
                let text = text.to_string();
                let request = SendRequest {
                    ticket: ticket(u64::try_from(expected.len()).unwrap()),
                    client_id: client_id.map(|id| id.to_string().into()),
                    ..message(conv_id(*conv), UserId::new(*sender).unwrap(), &text)
                };
                house.store.send(request).unwrap();
                expected.push(model.send(*sender, *conv, *client_id, &text));
            }
            Step::Cursor { .. } => cursors.push(step),
            Step::Flush { reopen } => {
                drop(hold.take());
                for (at, outcome) in house.sends(expected.len()).into_iter().enumerate() {
                    assert_eq!(outcome.ticket.unwrap().token, u64::try_from(at).unwrap());
                    let got = match outcome.result {
                        Ok(Sent::New(entry)) => Expected::New(entry.seq.get()),
                        Ok(Sent::Duplicate { seq, .. }) => Expected::Duplicate(seq.get()),
                        Err(error) => Expected::Refused(error),
                    };
                    assert_eq!(got, expected[at], "request {at}");
                }
                expected.clear();
                for step in cursors.drain(..) {
                    move_cursor(&house, &mut model, step);
                }
                check(&house, &model);
                if *reopen {
                    house.store.close();
                    house = Harness::with(&config);
                    check(&house, &model);
                }
            }
        }
    }
}

fn move_cursor(house: &Harness, model: &mut Model, step: &Step) {
    let Step::Cursor { user, conv, delivered, read } = step else { return };
    let before = model.cursors.get(&(*user, *conv)).copied().unwrap_or_default();
    let expected = model.cursor(*user, *conv, *delivered, *read);
    let after = model.cursors.get(&(*user, *conv)).copied().unwrap_or_default();
    let write = CursorWrite {
        ticket: Some(ticket(1)),
        ..cursor(UserId::new(*user).unwrap(), conv_id(*conv), *delivered, *read)
    };
    let outcome = house.moved(write);
    assert_eq!(outcome.result, expected);
    assert_eq!(outcome.delivered.map(|s| s.get()), (after.0 > before.0).then_some(after.0));
    assert_eq!(outcome.read.map(|s| s.get()), (after.1 > before.1).then_some(after.1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::engine::CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_do_what_the_model_does(
        steps in proptest::collection::vec(step(), 0..120),
        batch_max in prop_oneof![Just(1_usize), Just(3), Just(512)],
    ) {
        play(&steps, batch_max);
    }
}
