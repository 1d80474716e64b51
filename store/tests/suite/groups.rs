//! Groups, friends and blocks: who may do what, and the entries that tell of it.

use schema::{ConvId, Seq, UserId};
use store::dao::{ConversationDao, CursorDao, FriendDao, GroupDao, MessageDao, OfflineMessageDao, Requested};
use store::{
    Audience, Body, Change, Connection, CursorError, Denied, Entry, Event, FriendState, Role, SendError,
    Span, StoreError,
};

use crate::common::*;

impl Harness {
    pub fn group(&self, owner: UserId, open: bool) -> ConvId {
        self.store.write_wait(move |db| GroupDao::new(db).create(owner, "tea", open, 7)).unwrap().unwrap()
    }

    fn change<T: Send + 'static>(
        &self,
        conv: ConvId,
        change: impl FnMut(&mut Connection) -> Result<Result<T, Denied>, StoreError> + Send + 'static,
    ) -> Result<T, Denied> {
        self.store.write_in_wait(conv, change).unwrap()
    }

    pub fn join(&self, conv: ConvId, user: UserId) -> Result<Seq, Denied> {
        self.change(conv, move |db| GroupDao::new(db).join(conv, user, 8))
    }

    pub fn leave(&self, conv: ConvId, user: UserId) -> Result<(), Denied> {
        self.change(conv, move |db| GroupDao::new(db).leave(conv, user, 9))
    }

    fn role(&self, conv: ConvId, user: UserId) -> Option<Role> {
        self.store.read_wait(move |db| GroupDao::new(db).member(conv, user)).unwrap().map(|m| m.role)
    }

    fn told(&self) -> Vec<Entry> {
        let mut all = Vec::new();
        for batch in self.batches.try_iter() {
            for outcome in batch.sends {
                assert!(outcome.ticket.is_none(), "nobody waits for it");
                all.push(new(outcome.result));
            }
        }
        all
    }
}

fn event(entry: &Entry) -> (UserId, Event) {
    match &entry.body {
        Body::Event(event) => (entry.sender, event.clone()),
        Body::Text(text) => panic!("a text: {text}"),
    }
}

const fn happened(user: UserId, change: Change) -> Event {
    Event { user, change }
}

#[test]
fn a_group_tells_of_itself_in_its_own_sequence() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, cat) = (house.user("amy"), house.user("bob"), house.user("cat"));
    let tea = house.group(amy, true);
    house.join(tea, bob).unwrap();
    let hi = new(house.say_past_events(message(tea, bob, "hi")));
    assert_eq!((hi.seq.get(), &hi.to, &*hi.sender_name), (3, &None, "bob"));
    house.join(tea, cat).unwrap();
    house.change(tea, move |db| GroupDao::new(db).set_role(tea, amy, bob, Role::Admin, 9)).unwrap();
    house.change(tea, move |db| GroupDao::new(db).rename(tea, bob, "coffee", 9)).unwrap();
    house.change(tea, move |db| GroupDao::new(db).kick(tea, bob, cat, 9)).unwrap();
    house.leave(tea, amy).unwrap();
    let entries = assert_gapless(&house, tea);
    let seen: Vec<_> = entries.iter().filter(|entry| entry.text().is_empty()).map(event).collect();
    let expected = [
        (amy, happened(amy, Change::Created("tea".into()))),
        (bob, happened(bob, Change::Joined)),
        (cat, happened(cat, Change::Joined)),
        (amy, happened(bob, Change::Role(Role::Admin, "bob".into()))),
        (bob, happened(bob, Change::Renamed("coffee".into()))),
        (bob, happened(cat, Change::Kicked("cat".into()))),
        (amy, happened(amy, Change::Left)),
        (amy, happened(bob, Change::Role(Role::Owner, "bob".into()))),
    ];
    assert_eq!(seen, expected);
    assert!(entries.iter().all(|entry| entry.to.is_none()));
    let told = house.told();
    assert_eq!(told.len(), 8 - 2, "those after the message; what came before it was read away");
    assert_eq!(told.last(), entries.last());
}

#[test]
fn only_members_write_and_what_they_may_see_are_their_spans() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, eve) = (house.user("amy"), house.user("bob"), house.user("eve"));
    let tea = house.group(amy, true);
    assert_eq!(house.say_past_events(message(tea, bob, "no")), Err(SendError::Forbidden));
    house.say(message(tea, amy, "before")).unwrap();
    house.join(tea, bob).unwrap();
    house.say_past_events(message(tea, bob, "in")).unwrap();
    house.leave(tea, bob).unwrap();
    assert_eq!(house.say_past_events(message(tea, bob, "no")), Err(SendError::Forbidden), "at once");
    house.say(message(tea, amy, "between")).unwrap();
    house.join(tea, bob).unwrap();
    house.say_past_events(message(tea, amy, "again")).unwrap();
    let spans = house.store.read_wait(move |db| GroupDao::new(db).spans(tea, bob)).unwrap();
    assert_eq!(spans, [Span { from: seq(3), to: seq(5) }, Span { from: seq(7), to: Seq::MAX }]);
    let visible = spans.clone();
    let page = house.store.read_wait(move |db| MessageDao::new(db).after_in(tea, &visible, ALL)).unwrap();
    let seqs = |entries: &[Entry]| entries.iter().map(|e| e.seq.get()).collect::<Vec<_>>();
    assert_eq!(seqs(&page.entries), [3, 4, 5, 7, 8]);
    let two = store::dao::PageLimit { entries: 2, bytes: usize::MAX };
    let visible = spans.clone();
    let page = house.store.read_wait(move |db| MessageDao::new(db).before_in(tea, &visible, two)).unwrap();
    assert_eq!((seqs(&page.entries), page.more), (vec![7, 8], true));
    let three = store::dao::PageLimit { entries: 3, bytes: usize::MAX };
    let page = house.store.read_wait(move |db| MessageDao::new(db).before_in(tea, &spans, three)).unwrap();
    assert_eq!((seqs(&page.entries), page.more), (vec![5, 7, 8], true));
    let none = house.store.read_wait(move |db| GroupDao::new(db).spans(tea, eve)).unwrap();
    assert!(none.is_empty());

    // What was missed are both spans; the cursor goes over the gap.
    let missed = house.store.read_wait(move |db| OfflineMessageDao::new(db).page(bob, tea, ALL)).unwrap();
    assert_eq!(seqs(&missed.entries), [3, 4, 5, 7, 8]);
    let position =
        house.store.read_wait(move |db| ConversationDao::new(db).positions(bob)).unwrap().remove(0);
    assert_eq!((position.delivered.get(), position.last_seq.get(), position.spans.len()), (2, 8, 2));
    let outcome = house.moved(cursor(bob, tea, Some(5), None));
    assert_eq!((outcome.delivered, outcome.audience), (Some(seq(5)), Audience::Group));
    let position =
        house.store.read_wait(move |db| ConversationDao::new(db).positions(bob)).unwrap().remove(0);
    assert!(position.has_beyond(seq(5)) && !position.has_beyond(seq(8)));
    assert_eq!(position.visible_end(), seq(8));
    let listed = house.store.read_wait(move |db| ConversationDao::new(db).list(bob, None, 9)).unwrap();
    assert_eq!((&*listed[0].name, listed[0].peer, listed[0].unread), ("tea", None, 1), "one by another");

    // Who has left sees no more than that, and acks no more.
    house.leave(tea, bob).unwrap();
    house.say_past_events(message(tea, amy, "gone")).unwrap();
    let listed = house.store.read_wait(move |db| ConversationDao::new(db).list(bob, None, 9)).unwrap();
    assert_eq!((listed[0].last_seq.get(), listed[0].unread), (9, 0));
    let outcome = house.moved(cursor(bob, tea, Some(99), None));
    assert_eq!((outcome.delivered, outcome.audience), (Some(seq(9)), Audience::Own));
    assert_eq!(house.moved(cursor(eve, tea, Some(1), None)).result, Err(CursorError::Forbidden));
    let position =
        house.store.read_wait(move |db| ConversationDao::new(db).positions(bob)).unwrap().remove(0);
    assert!(!position.has_beyond(seq(9)));
    assert_eq!(position.visible_end(), seq(9));
}

#[test]
fn a_closed_group_is_joined_by_invitation_and_each_role_may_what_it_may() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let users: Vec<UserId> = (0..5).map(|at| house.user(&format!("u{at}"))).collect();
    let [amy, bob, cat, dan, eve] = <[UserId; 5]>::try_from(users).unwrap();
    let tea = house.group(amy, false);
    let forbidden =
        |result: Result<(), Denied>| assert!(matches!(result, Err(Denied::Forbidden(_))), "{result:?}");
    forbidden(house.join(tea, bob).map(drop));
    let invite = |by: UserId, user: UserId| {
        house.change(tea, move |db| GroupDao::new(db).invite(tea, by, user, 5)).map(drop)
    };
    forbidden(invite(eve, bob));
    invite(amy, bob).unwrap();
    invite(amy, bob).unwrap();
    let listed = house.store.read_wait(move |db| GroupDao::new(db).list(bob, None, 9)).unwrap();
    assert_eq!((listed.len(), listed[0].role, listed[0].group.members), (1, None, 1));
    let open = house.store.read_wait(move |db| GroupDao::new(db).invitations(bob)).unwrap();
    assert_eq!((open.len(), &*open[0].name, &*open[0].inviter_name), (1, "tea", "u0"));
    house.join(tea, bob).unwrap();
    assert!(house.store.read_wait(move |db| GroupDao::new(db).invitations(bob)).unwrap().is_empty());
    assert!(matches!(house.join(tea, bob), Err(Denied::Conflict(_))));
    assert!(matches!(invite(amy, bob), Err(Denied::Conflict(_))));
    assert_eq!(invite(amy, UserId::new(99).unwrap()), Err(Denied::NotFound));
    forbidden(invite(bob, cat));

    let give = |by: UserId, user: UserId, role: Role| {
        house.change(tea, move |db| GroupDao::new(db).set_role(tea, by, user, role, 5))
    };
    forbidden(give(bob, bob, Role::Admin));
    give(amy, bob, Role::Admin).unwrap();
    invite(bob, cat).unwrap();
    invite(bob, dan).unwrap();
    house.join(tea, cat).unwrap();
    house.join(tea, dan).unwrap();
    let kick =
        |by: UserId, user: UserId| house.change(tea, move |db| GroupDao::new(db).kick(tea, by, user, 5));
    forbidden(kick(bob, amy));
    forbidden(kick(cat, dan));
    assert_eq!(kick(bob, eve), Err(Denied::NotFound));
    assert!(matches!(kick(bob, bob), Err(Denied::BadRequest(_))));
    kick(bob, dan).unwrap();
    forbidden(house.join(tea, dan).map(drop));
    forbidden(house.change(tea, move |db| GroupDao::new(db).rename(tea, cat, "x", 5)));

    // Who makes another the owner is one no more; the oldest admin comes before the oldest member.
    give(amy, cat, Role::Owner).unwrap();
    assert_eq!(
        [amy, bob, cat].map(|user| house.role(tea, user)),
        [Role::Admin, Role::Admin, Role::Owner].map(Some)
    );
    house.leave(tea, cat).unwrap();
    assert_eq!(house.role(tea, amy), Some(Role::Owner), "the oldest admin");
    house.leave(tea, amy).unwrap();
    house.leave(tea, bob).unwrap();
    assert_eq!(house.join(tea, eve), Err(Denied::NotFound), "the last one closed it");
    assert_eq!(house.leave(conv(99), eve), Err(Denied::NotFound));
    assert!(house.store.read_wait(move |db| GroupDao::new(db).list(bob, None, 9)).unwrap().is_empty());
    assert_gapless(&house, tea);
}

#[test]
fn members_are_listed_in_pages_and_marks_reach_groups_up_to_a_hundred() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let owner = house.user("owner");
    let tea = house.group(owner, true);
    for at in 0..100 {
        let user = house.user(&format!("u{at}"));
        house.join(tea, user).unwrap();
        if at == 98 {
            house.told();
            assert_eq!(house.moved(cursor(owner, tea, Some(1), None)).audience, Audience::Group);
        }
    }
    house.told();
    assert_eq!(house.moved(cursor(owner, tea, Some(2), None)).audience, Audience::Own, "101 members");
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = house.store.read_wait(move |db| GroupDao::new(db).members(tea, after, 40)).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.user);
        all.extend(page);
    }
    assert_eq!(all.len(), 101);
    assert!(all.is_sorted_by_key(|member| member.user));
    assert_eq!(all.iter().filter(|member| member.role == Role::Owner).count(), 1);
    let group = house.store.read_wait(move |db| GroupDao::new(db).get(tea)).unwrap().unwrap();
    assert_eq!(group.members, 101);
    let marks = house.store.read_wait(move |db| CursorDao::new(db).marks(tea)).unwrap();
    assert_eq!(marks.len(), 101);
}

#[test]
fn a_request_a_meeting_request_and_a_block() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, talk) = house.pair();
    let ask = |user: UserId, other: UserId| {
        house
            .store
            .write_wait(move |db| FriendDao::new(db).request(user, other))
            .unwrap()
            .map(|(came, _)| came)
    };
    let state = |user: UserId, other: UserId| {
        house.store.read_wait(move |db| FriendDao::new(db).state(user, other)).unwrap()
    };
    assert!(matches!(ask(amy, amy), Err(Denied::BadRequest(_))));
    assert_eq!(ask(amy, UserId::new(99).unwrap()), Err(Denied::NotFound));
    assert_eq!(ask(amy, bob), Ok(Requested::Asked));
    assert_eq!(ask(amy, bob), Ok(Requested::Asked));
    assert_eq!(
        (state(amy, bob), state(bob, amy)),
        (Some(FriendState::Requested), Some(FriendState::Incoming))
    );
    let accept = |user: UserId, other: UserId| {
        house.store.write_wait(move |db| FriendDao::new(db).accept(user, other)).unwrap()
    };
    assert_eq!(accept(amy, bob), Err(Denied::NotFound), "one's own request is not one's to accept");
    assert_eq!(ask(bob, amy), Ok(Requested::Accepted));
    assert_eq!(ask(bob, amy), Ok(Requested::AlreadyFriends));
    let list = house.store.read_wait(move |db| FriendDao::new(db).list(amy, None, 9)).unwrap();
    assert_eq!(
        (list.len(), list[0].user, &*list[0].name, list[0].state),
        (1, bob, "bob", FriendState::Friend)
    );
    assert!(house.store.read_wait(move |db| FriendDao::new(db).list(amy, Some(bob), 9)).unwrap().is_empty());

    house.say(message(talk, amy, "hi")).unwrap();
    let block = |user: UserId, other: UserId| {
        house.store.write_wait(move |db| FriendDao::new(db).block(user, other)).unwrap()
    };
    assert_eq!(block(bob, amy), Ok(true));
    assert_eq!(block(bob, amy), Ok(false), "again is no error");
    assert!(matches!(block(bob, bob), Err(Denied::BadRequest(_))));
    assert_eq!((state(amy, bob), state(bob, amy)), (None, None));
    for sender in [amy, bob] {
        assert_eq!(house.say(message(talk, sender, "no")), Err(SendError::Blocked), "in both directions");
    }
    assert!(matches!(ask(amy, bob), Err(Denied::Forbidden(_))));
    assert_eq!(house.moved(cursor(bob, talk, Some(1), Some(1))).audience, Audience::Own, "hidden");
    let tea = house.group(amy, false);
    let invited = house.change(tea, move |db| GroupDao::new(db).invite(tea, amy, bob, 5)).map(drop);
    assert!(matches!(invited, Err(Denied::Forbidden(_))));
    let blocked = house.store.read_wait(move |db| FriendDao::new(db).blocked(bob, None, 9)).unwrap();
    assert_eq!((blocked.len(), blocked[0].id, &*blocked[0].name), (1, amy, "amy"));
    let unblock = |user: UserId, other: UserId| {
        house.store.write_wait(move |db| FriendDao::new(db).unblock(user, other)).unwrap()
    };
    assert!(unblock(bob, amy) && !unblock(bob, amy));
    house.say_past_events(message(talk, amy, "again")).unwrap();
    let reject = |user: UserId, other: UserId| {
        house.store.write_wait(move |db| FriendDao::new(db).reject(user, other)).unwrap()
    };
    let remove = |user: UserId, other: UserId| {
        house.store.write_wait(move |db| FriendDao::new(db).remove(user, other)).unwrap()
    };
    assert_eq!(reject(amy, bob), Err(Denied::NotFound));
    ask(bob, amy).unwrap();
    assert_eq!(remove(amy, bob), Err(Denied::NotFound), "an incoming request is rejected, not removed");
    reject(amy, bob).unwrap();
    ask(bob, amy).unwrap();
    remove(bob, amy).unwrap();
    assert_eq!((state(amy, bob), state(bob, amy)), (None, None));
}
