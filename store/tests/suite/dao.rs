//! The DAOs: lists, pages, what was missed, tokens.

use crate::common::*;
use schema::{ConvId, UserId};
use store::dao::{ConversationDao, MessageDao, OfflineMessageDao, PageLimit, TokenDao, UserDao};
use store::{Page, StoreError, TokenRow};

fn numbers(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.seq.get()).collect()
}

const fn limit(entries: u32) -> PageLimit {
    PageLimit { entries, bytes: usize::MAX }
}

#[test]
fn a_name_is_taken_once() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let create = |name: &'static str, key: &'static str| {
        house.store.write_wait(move |db| UserDao::new(db).create(name, key, "hash", 5))
    };
    let amy = create("Amy", "amy").unwrap();
    assert!(matches!(create("AMY", "amy"), Err(StoreError::Duplicate { .. })));
    let bob = create("Bob", "bob").unwrap();
    assert_eq!(bob.get(), amy.get() + 1, "a taken name uses up no id");
    let found = house.store.read_wait(move |db| UserDao::new(db).by_id(amy)).unwrap().unwrap();
    assert_eq!((found.id, &*found.name, found.created_ms), (amy, "Amy", 5));
    let set = move |db: &mut store::Connection| UserDao::new(db).set_password_hash(amy, "other");
    assert_eq!(house.store.write_wait(set), Ok(true));
    let found = house.store.read_wait(|db| UserDao::new(db).credentials_by_name_key("amy")).unwrap().unwrap();
    assert_eq!((found.user.id, &*found.password_hash), (amy, "other"));
    assert!(!format!("{found:?}").contains("other"), "a hash is not shown");
    let nobody = UserId::new(99).unwrap();
    assert_eq!(house.store.write_wait(move |db| UserDao::new(db).set_password_hash(nobody, "x")), Ok(false));
}

#[test]
fn a_pair_has_one_direct_conversation_whoever_begins_it() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    assert_eq!(house.direct(bob, amy), conv);
    let row =
        house.store.read_wait(move |db| ConversationDao::new(db).find_direct(bob, amy)).unwrap().unwrap();
    assert_eq!((row.id, row.pair.as_ref().unwrap().ids(), row.last_seq.get()), (conv, [amy, bob], 0));
    assert_eq!(row.pair.as_ref().unwrap().other(bob).map(|(id, name)| (id, &**name)), Some((amy, "amy")));
    let nobody = UserId::new(99).unwrap();
    for (a, b) in [(amy, amy), (amy, nobody), (nobody, amy)] {
        assert_eq!(house.store.write_wait(move |db| ConversationDao::new(db).direct(a, b, 1)), Ok(None));
    }
    let nowhere = crate::common::conv(99);
    assert_eq!(house.store.read_wait(move |db| ConversationDao::new(db).get(nowhere)), Ok(None));
}

#[test]
fn a_list_shows_conversations_with_entries_in_order_and_counts_what_is_unread() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let amy = house.user("amy");
    let others: Vec<_> = (0..5).map(|at| house.user(&format!("u{at}"))).collect();
    let convs: Vec<_> = others.iter().map(|other| house.direct(*other, amy)).collect();
    for (at, conv) in convs.iter().enumerate().filter(|(at, _)| *at != 2) {
        for _ in 0..=at {
            house.say(message(*conv, others[at], "x")).unwrap();
        }
    }
    let list = |after: Option<ConvId>, limit: u32| {
        house.store.read_wait(move |db| ConversationDao::new(db).list(amy, after, limit)).unwrap()
    };
    let all = list(None, 100);
    assert_eq!(all.iter().map(|l| l.conv).collect::<Vec<_>>(), [convs[0], convs[1], convs[3], convs[4]]);
    assert_eq!(all.iter().map(|l| l.unread).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!((all[1].peer, &*all[1].name), (Some(others[1]), "u1"));
    assert_eq!(list(Some(convs[0]), 2).iter().map(|l| l.conv).collect::<Vec<_>>(), [convs[1], convs[3]]);
    assert_eq!(list(Some(convs[4]), 2), []);
    // Reading and answering both end what is unread.
    let last = convs[4];
    house.moved(cursor(amy, last, Some(4), Some(3)));
    let row = list(Some(convs[3]), 1).remove(0);
    assert_eq!((row.last_seq.get(), row.delivered.get(), row.read.get(), row.unread), (5, 4, 3, 2));
    house.say(message(last, amy, "answer")).unwrap();
    assert_eq!(list(Some(convs[3]), 1)[0].unread, 0);
    house.say(message(last, others[4], "again")).unwrap();
    assert_eq!(list(Some(convs[3]), 1)[0].unread, 1);
    // The other's own messages are not unread to the other.
    let other = others[4];
    let theirs = house.store.read_wait(move |db| ConversationDao::new(db).list(other, None, 1)).unwrap();
    assert_eq!((theirs[0].peer, theirs[0].unread), (Some(amy), 0));
}

#[test]
fn positions_are_those_of_all_conversations() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, one) = house.pair();
    let cat = house.user("cat");
    let two = house.direct(cat, bob);
    house.say(message(one, amy, "1")).unwrap();
    house.say(message(one, amy, "2")).unwrap();
    house.moved(cursor(bob, one, Some(1), None));
    let positions = house.store.read_wait(move |db| ConversationDao::new(db).positions(bob)).unwrap();
    let seen: Vec<_> =
        positions.iter().map(|p| (p.conv, p.other, p.delivered.get(), p.last_seq.get())).collect();
    assert_eq!(seen, [(one, Some(amy), 1, 2), (two, Some(cat), 0, 0)]);
    let missed = house.store.read_wait(move |db| OfflineMessageDao::new(db).conversations(bob)).unwrap();
    assert_eq!(missed, positions[..1]);
    let page =
        |user| house.store.read_wait(move |db| OfflineMessageDao::new(db).page(user, one, ALL)).unwrap();
    assert_eq!(numbers(&page(bob)), [2]);
    assert_eq!(numbers(&page(amy)), [1, 2]);
    assert!(page(cat).entries.is_empty(), "not a member");
}

#[test]
fn pages_are_the_neighbours_of_their_bound_in_increasing_order() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    for number in 1..=10 {
        let sender = if number % 2 == 0 { amy } else { bob };
        house.say(message(conv, sender, &"x".repeat(100))).unwrap();
    }
    let after = |from: u64, upto: u64, limit: PageLimit| {
        house.store.read_wait(move |db| MessageDao::new(db).after(conv, seq(from), seq(upto), limit)).unwrap()
    };
    let before = |bound: u64, limit: PageLimit| {
        house.store.read_wait(move |db| MessageDao::new(db).before(conv, seq(bound), limit)).unwrap()
    };
    let last =
        |limit: PageLimit| house.store.read_wait(move |db| MessageDao::new(db).last(conv, limit)).unwrap();
    let seen = |page: Page| (numbers(&page), page.more);
    assert_eq!(seen(after(0, 10, limit(3))), (vec![1, 2, 3], true));
    assert_eq!(seen(after(7, 10, limit(3))), (vec![8, 9, 10], false));
    assert_eq!(seen(after(7, 9, limit(3))), (vec![8, 9], false));
    assert_eq!(seen(after(7, 9, limit(1))), (vec![8], true));
    assert_eq!(seen(after(10, 10, limit(3))), (vec![], false));
    assert_eq!(seen(after(12, 99, limit(3))), (vec![], false));
    assert_eq!(seen(before(4, limit(3))), (vec![1, 2, 3], false));
    assert_eq!(seen(before(5, limit(3))), (vec![2, 3, 4], true));
    assert_eq!(seen(before(1, limit(3))), (vec![], false));
    assert_eq!(seen(before(99, limit(2))), (vec![9, 10], true));
    assert_eq!(seen(last(limit(2))), (vec![9, 10], true));
    assert_eq!(seen(last(limit(10))), ((1..=10).collect(), false));
    // Bytes bound a page too, but one entry always comes.
    let bytes = |bytes| PageLimit { entries: 100, bytes };
    assert_eq!(seen(after(0, 10, bytes(250))), (vec![1, 2], true));
    assert_eq!(seen(before(10, bytes(299))), (vec![8, 9], true));
    assert_eq!(seen(last(bytes(300))), (vec![8, 9, 10], true));
    assert_eq!(seen(last(bytes(1))), (vec![10], true));
    assert_eq!(seen(after(9, 10, bytes(1))), (vec![10], false));
    let entry = last(limit(1)).entries.remove(0);
    assert_eq!((entry.sender, &*entry.sender_name), (amy, "amy"));
    assert_eq!((entry.to, entry.session.unwrap().get()), (Some((bob, "bob".into())), amy.get()));
    let nowhere = crate::common::conv(99);
    let page = house.store.read_wait(move |db| MessageDao::new(db).last(nowhere, ALL)).unwrap();
    assert_eq!(page, Page::default());
}

#[test]
fn tokens_are_found_renewed_and_revoked_by_their_hash() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, _) = house.pair();
    let row = |number: u8, user: UserId, expires_ms: i64| TokenRow {
        hash: [number; 32],
        user,
        device: number.is_multiple_of(2).then(|| format!("device {number}")),
        created_ms: 1,
        expires_ms,
    };
    let rows = [row(1, amy, 300), row(2, amy, 100), row(3, amy, 200), row(4, bob, 100)];
    for row in rows.clone() {
        house.store.write_wait(move |db| TokenDao::new(db).insert(&row)).unwrap();
    }
    let again = rows[0].clone();
    let error = house.store.write_wait(move |db| TokenDao::new(db).insert(&again)).unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { .. }));
    let of = |user| house.store.read_wait(move |db| TokenDao::new(db).of_user(user)).unwrap();
    assert_eq!(of(amy), [rows[1].clone(), rows[2].clone(), rows[0].clone()], "the first to expire first");
    let found = |number| house.store.read_wait(move |db| TokenDao::new(db).find(&[number; 32])).unwrap();
    assert_eq!(found(2).as_ref(), Some(&rows[1]));
    assert_eq!(found(9), None);
    let renew =
        |number, at| house.store.write_wait(move |db| TokenDao::new(db).renew(&[number; 32], at)).unwrap();
    assert!(renew(2, 400) && !renew(2, 350) && !renew(9, 400));
    assert_eq!(found(2).unwrap().expires_ms, 400);
    let delete = |user, number| {
        house.store.write_wait(move |db| TokenDao::new(db).delete(user, &[number; 32])).unwrap()
    };
    assert!(!delete(bob, 1), "another's token is not there");
    assert!(delete(amy, 1) && !delete(amy, 1));
    let sweep =
        |limit| house.store.write_wait(move |db| TokenDao::new(db).delete_expired(200, limit)).unwrap();
    assert_eq!((sweep(1), sweep(9), sweep(9)), (1, 1, 0));
    assert_eq!(of(amy).len(), 1);
    let row = row(5, amy, 500);
    house.store.write_wait(move |db| TokenDao::new(db).insert(&row)).unwrap();
    let all = move |db: &mut store::Connection| TokenDao::new(db).delete_all(amy, Some(&[5; 32]));
    assert_eq!(house.store.write_wait(all).unwrap(), [[2; 32]]);
    assert_eq!(of(amy).len(), 1);
}
