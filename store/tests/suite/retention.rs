//! Messages that are deleted for their age, and what still holds when the beginning of a conversation is gone.

use schema::{ConvId, Seq};
use store::dao::{ConversationDao, GroupDao, MessageDao, OfflineMessageDao};
use store::{Connection, Sent, Span};

use crate::common::*;

impl Harness {
    /// Makes the entries up to `last` old.
    fn age(&self, conv: ConvId, last: u64) {
        let op = move |db: &mut Connection| {
            db.execute(
                "UPDATE message SET time_ms = 5 WHERE conv = ? AND seq <= ?",
                &[conv.into(), seq(last).into()],
            )
        };
        self.store.write_in_wait(conv, op).unwrap();
    }

    fn places(&self, conv: ConvId) -> Vec<u64> {
        self.entries(conv).iter().map(|entry| entry.seq.get()).collect()
    }

    fn oldest(&self, conv: ConvId) -> u64 {
        self.store.read_wait(move |db| MessageDao::new(db).oldest(conv)).unwrap().get()
    }
}

#[test]
fn old_messages_go_and_the_rest_keeps_its_places() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    // More than one job deletes.
    let count = 450;
    for number in 1..=count {
        house.store.send(message(conv, amy, &number.to_string())).unwrap();
    }
    house.sends(450);
    let other = house.direct(amy, house.user("cat"));
    new(house.say(message(other, amy, "young")));
    house.age(conv, count - 5);
    assert_eq!(house.store.forget_before(6), Ok(445));
    assert_eq!(house.store.forget_before(6), Ok(0));
    assert_eq!((house.places(conv), house.oldest(conv)), (Vec::from_iter(count - 4..=count), count - 4));
    assert_eq!((house.places(other), house.oldest(other)), (vec![1], 1));
    assert_eq!(house.store.stats().expired, 445);
    assert_eq!(new(house.say(message(conv, bob, "next"))).seq.get(), count + 1);
}

#[test]
fn a_conversation_of_which_nothing_is_left_goes_on_where_it_was() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _, conv) = house.pair();
    assert_eq!(house.oldest(conv), 1, "nothing was said yet");
    for text in ["a", "b", "c"] {
        new(house.say(message(conv, amy, text)));
    }
    house.age(conv, 3);
    assert_eq!(house.store.forget_before(6), Ok(3));
    assert_eq!((house.places(conv), house.oldest(conv)), (vec![], 4));
    assert_eq!(new(house.say(message(conv, amy, "d"))).seq.get(), 4);
    assert_eq!(house.places(conv), [4]);
}

#[test]
fn a_young_message_keeps_the_old_ones_behind_it() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _, conv) = house.pair();
    for text in ["a", "b", "c", "d"] {
        new(house.say(message(conv, amy, text)));
    }
    // A clock that was set back: the second is younger than the third.
    house.age(conv, 3);
    let op = |db: &mut Connection| db.execute("UPDATE message SET time_ms = 9 WHERE seq = 2", &[]);
    house.store.write_in_wait(conv, op).unwrap();
    assert_eq!(house.store.forget_before(6), Ok(1));
    assert_eq!(house.places(conv), [2, 3, 4]);
}

#[test]
fn what_is_gone_is_neither_unread_nor_missed() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    for number in 0..10 {
        new(house.say(message(conv, amy, &number.to_string())));
    }
    let unread = || {
        let listed = house.store.read_wait(move |db| ConversationDao::new(db).list(bob, None, 9)).unwrap();
        (listed[0].unread, listed[0].last_seq.get())
    };
    assert_eq!(unread(), (10, 10));
    house.age(conv, 6);
    assert_eq!(house.store.forget_before(6), Ok(6));
    assert_eq!(unread(), (4, 10));
    let page = house.store.read_wait(move |db| OfflineMessageDao::new(db).page(bob, conv, ALL)).unwrap();
    assert_eq!(page.entries.first().map(|entry| entry.seq), Some(seq(7)));
    let before = house.store.read_wait(move |db| MessageDao::new(db).before(conv, seq(7), ALL)).unwrap();
    assert!(before.entries.is_empty() && !before.more);
    house.moved(cursor(bob, conv, Some(8), Some(8)));
    assert_eq!(unread(), (2, 10));
    house.age(conv, 10);
    assert_eq!(house.store.forget_before(6), Ok(4));
    assert_eq!(unread(), (0, 10));
}

#[test]
fn members_keep_their_spans_when_the_entries_that_began_them_are_gone() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob) = (house.user("amy"), house.user("bob"));
    let tea = house.group(amy, true);
    house.join(tea, bob).unwrap();
    house.say_past_events(message(tea, bob, "in")).unwrap();
    house.leave(tea, bob).unwrap();
    house.join(tea, bob).unwrap();
    house.say_past_events(message(tea, amy, "again")).unwrap();
    house.age(tea, 5);
    assert_eq!(house.store.forget_before(6), Ok(5));
    let spans = house.store.read_wait(move |db| GroupDao::new(db).spans(tea, bob)).unwrap();
    assert_eq!(spans, [Span { from: seq(2), to: seq(4) }, Span { from: seq(5), to: Seq::MAX }]);
    let page = house.store.read_wait(move |db| MessageDao::new(db).after_in(tea, &spans, ALL)).unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.seq.get()).collect::<Vec<_>>(), [6]);
    assert_eq!(new(house.say_past_events(message(tea, bob, "still a member"))).seq.get(), 7);
    house.leave(tea, amy).unwrap();
    assert_eq!(house.places(tea), [6, 7, 8, 9], "and it is known who comes after the owner");
}

#[test]
fn a_message_that_is_sent_again_is_known_when_its_text_is_gone() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _, conv) = house.pair();
    new(house.say(with_id(conv, amy, "c1", "hi")));
    new(house.say(with_id(conv, amy, "c2", "ho")));
    house.age(conv, 1);
    assert_eq!(house.store.forget_before(6), Ok(1));
    let again = house.say(with_id(conv, amy, "c1", "hi")).unwrap();
    assert!(matches!(again, Sent::Duplicate { seq, .. } if seq.get() == 1), "{again:?}");
}
