//! The list of what the protocol's page promises and where that is tested: every request, every error code, every code of a `bye`. Who adds one is told here to test it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::path::Path;

use schema::error::{ByeCode, ErrorCode};

/// A request, and a test in which it does what the page says.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("ping", "conformance/connection.rs", "ping_tells_the_time"),
    ("register", "conformance/accounts.rs", "registering_gives_each_user_an_id"),
    ("login", "conformance/accounts.rs", "a_login_tells_everything_about_the_session"),
    ("sync", "conformance/resume.rs", "a_named_conversation_starts_at_the_devices_cursor"),
    ("logout", "conformance/sessions.rs", "logout_all_ends_every_session_and_revokes_every_token"),
    ("password", "conformance/sessions.rs", "a_changed_password_revokes_every_other_session"),
    ("find_user", "conformance/accounts.rs", "a_person_is_found_by_name_online_and_offline"),
    ("send", "conformance/sending.rs", "a_conversation_starts_at_one_and_has_no_gaps"),
    ("ack", "conformance/cursors.rs", "an_ack_moves_delivered_and_never_back"),
    ("read", "conformance/cursors.rs", "read_is_told_to_the_sender_and_to_ones_other_sessions"),
    ("typing", "conformance/cursors.rs", "typing_is_told_to_who_is_online"),
    ("marks", "conformance/cursors.rs", "marks_outlive_the_session"),
    ("history", "conformance/lists.rs", "history_pages_backwards_to_the_beginning"),
    ("conversations", "conformance/lists.rs", "conversations_come_in_pages_by_increasing_id"),
    ("friend_request", "conformance/friends.rs", "a_request_is_told_listed_on_both_sides_and_accepted"),
    ("friend_accept", "conformance/friends.rs", "accepting_or_rejecting_what_was_not_requested_is_not_found"),
    ("friend_reject", "conformance/friends.rs", "accepting_or_rejecting_what_was_not_requested_is_not_found"),
    ("friend_remove", "conformance/friends.rs", "a_friendship_is_ended_by_either_side"),
    ("friends", "conformance/friends.rs", "a_list_of_friends_comes_in_pages"),
    ("block", "conformance/friends.rs", "a_block_ends_the_friendship_and_forbids_in_both_directions"),
    ("unblock", "conformance/friends.rs", "a_block_ends_the_friendship_and_forbids_in_both_directions"),
    ("blocked", "conformance/lists.rs", "blocked_users_groups_and_members_come_in_pages_by_increasing_id"),
    ("group_create", "conformance/groups.rs", "a_group_begins_with_created_and_is_heard_by_who_made_it"),
    ("group_join", "conformance/groups.rs", "a_member_sees_from_its_joined_to_its_left_and_nothing_else"),
    ("group_leave", "conformance/groups.rs", "each_role_may_what_the_page_says"),
    (
        "group_invite",
        "conformance/groups.rs",
        "a_closed_group_needs_an_invitation_which_is_told_and_told_again_at_login",
    ),
    ("group_kick", "conformance/groups.rs", "each_role_may_what_the_page_says"),
    ("group_role", "conformance/groups.rs", "each_role_may_what_the_page_says"),
    ("group_rename", "conformance/groups.rs", "each_role_may_what_the_page_says"),
    (
        "group_members",
        "conformance/lists.rs",
        "blocked_users_groups_and_members_come_in_pages_by_increasing_id",
    ),
    ("groups", "conformance/lists.rs", "blocked_users_groups_and_members_come_in_pages_by_increasing_id"),
];

/// An error code, and a test that meets it.
const ERRORS: &[(&str, &str, &str)] = &[
    ("bad_json", "conformance/lines.rs", "what_is_no_object_is_bad_json"),
    ("bad_request", "conformance/lines.rs", "a_field_of_the_wrong_type_or_out_of_range_is_bad_request"),
    ("too_large", "conformance/sending.rs", "a_text_is_1_to_16384_bytes"),
    ("unsupported_type", "conformance/lines.rs", "an_unknown_type_is_unsupported_and_the_connection_stays"),
    ("unsupported_version", "conformance/accounts.rs", "version_one_is_spoken_and_others_are_refused"),
    ("unauthorized", "conformance/sessions.rs", "everything_needs_a_login"),
    ("forbidden", "conformance/groups.rs", "each_role_may_what_the_page_says"),
    ("not_found", "conformance/lists.rs", "history_of_nowhere_is_not_found"),
    ("conflict", "conformance/sending.rs", "the_same_client_id_with_another_text_is_a_conflict"),
    ("rate_limited", "limits.rs", "a_session_sends_its_burst_and_is_told_how_long_to_wait"),
    ("overloaded", "codes.rs", "what_finds_a_queue_full_is_overloaded_and_succeeds_later"),
    (
        "unavailable",
        "mysql.rs",
        "while_the_database_is_gone_requests_are_unavailable_at_once_and_sessions_live_on",
    ),
    ("internal", "codes.rs", "a_stored_password_that_is_none_is_internal_and_nobody_elses_matter"),
];

/// A code of a `bye`, and a test that meets it.
const BYES: &[(&str, &str, &str)] = &[
    (
        "login_timeout",
        "conformance/connection.rs",
        "without_a_login_or_a_sign_of_life_the_connection_ends_and_with_them_it_stays",
    ),
    (
        "idle",
        "conformance/connection.rs",
        "without_a_login_or_a_sign_of_life_the_connection_ends_and_with_them_it_stays",
    ),
    ("too_large", "conformance/line_limits.rs", "before_login_a_line_of_4097_bytes_ends_the_connection"),
    ("too_many_errors", "conformance/line_limits.rs", "after_sixteen_bad_lines_in_a_row_the_connection_ends"),
    ("rate_limited", "limits.rs", "who_never_listens_is_disconnected"),
    ("replaced", "conformance/sessions.rs", "a_ninth_session_ends_the_oldest"),
    ("logged_out", "conformance/sessions.rs", "logout_all_ends_every_session_and_revokes_every_token"),
    // Who does not read gets no `bye` either: what is tested is the end.
    ("slow_consumer", "codes.rs", "who_reads_nothing_for_half_a_minute_is_disconnected_for_that"),
    (
        "shutdown",
        "conformance/operation.rs",
        "at_sigterm_everybody_is_told_to_come_back_and_nothing_accepted_is_lost",
    ),
    (
        "internal",
        "codes.rs",
        "who_sits_on_a_loop_that_fell_too_far_behind_is_told_to_come_back_and_misses_nothing",
    ),
];

fn names(rows: &[(&'static str, &str, &str)]) -> BTreeSet<&'static str> {
    rows.iter().map(|(name, ..)| *name).collect()
}

#[test]
fn every_request_and_every_code_is_on_the_list() {
    let parser = include_str!("../../schema/src/request.rs");
    let arm = |line: &'static str| {
        let (name, _) = line.strip_prefix("        \"")?.split_once("\" => ")?;
        Some(name)
    };
    let requests: BTreeSet<_> = parser.lines().filter_map(arm).collect();
    assert!(requests.len() > 30, "{requests:?}");
    assert_eq!(names(REQUESTS), requests);
    assert_eq!(names(ERRORS), ErrorCode::ALL.iter().map(|code| code.as_str()).collect());
    assert_eq!(names(BYES), ByeCode::ALL.iter().map(|code| code.as_str()).collect());
}

#[test]
fn the_tests_on_the_list_are_there_and_speak_of_what_they_stand_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (name, file, test) in [REQUESTS, ERRORS, BYES].concat() {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let begin = text.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("{file} has no test {test}"));
        assert!(text[..begin].trim_end().ends_with("#[test]"), "{test} is a test");
        // In the test itself, or in what its file has for it.
        assert!(text.contains(name) || name == "slow_consumer", "{file} does not speak of {name}");
    }
}
