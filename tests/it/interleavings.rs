//! Every order of what can happen around one flight, in small worlds.
//!
//! A stateless model checker over the real session: a scenario is executed from its beginning once
//! for every sequence of choices, until there is none left. Whatever the session waits for (the
//! store, the server, the API, a person, the clock) stands behind a door that one step opens, and
//! between two steps everybody runs until they all wait.
//!
//! What is checked in every execution stands in `ledger.rs` and at the end of `play.rs`, each with
//! its id. `INTERLEAVINGS=deep` explores larger trees; a failure says how to see it again.

mod cast;
mod choices;
mod epilogue;
mod explorer;
mod ledger;
mod play;
mod scenario;
mod world;

use self::explorer::is_deep;
use self::scenario::Actor::{Clear, Get, GetAnew, LogOut, Refresh, Set, Settle, Sibling};
use self::scenario::Answer::{
    Breaks, Busy, Fails, FailsAfterwards, Lost, None, Panics, RefreshTokenOnly, Rejects, Terminal,
    Unusable,
};
use self::scenario::Deviation::{At, Cancel, LeaseEnds, TimePasses};
use self::scenario::{Actor, Deviation, Door, Scenario, Start};

const REFRESH_FAILS: [Deviation; 6] = [
    At(Door::Refresh, Busy),
    At(Door::Refresh, Lost),
    At(Door::Refresh, Panics),
    At(Door::Refresh, RefreshTokenOnly),
    At(Door::Refresh, Terminal),
    At(Door::Refresh, Unusable),
];

const WRITE_FAILS: [Deviation; 4] = [
    At(Door::Write, Breaks),
    At(Door::Write, Fails),
    At(Door::Write, FailsAfterwards),
    At(Door::Write, Panics),
];

const READ_FAILS: [Deviation; 4] =
    [At(Door::Load, Fails), At(Door::Load, Panics), At(Door::Lock, Fails), At(Door::Lock, Panics)];

const FLIGHT: [Door; 3] = [Door::Load, Door::Refresh, Door::Write];

const WHOLE_FLIGHT: [Door; 5] =
    [Door::GiveBack, Door::Load, Door::Lock, Door::Refresh, Door::Write];

/// A larger number in deep trees.
fn at_most(deviations: usize, in_deep: usize) -> usize {
    if is_deep() { in_deep } else { deviations }
}

/// The same with each word of the user.
fn for_each_word(names: [&'static str; 3], scenario: impl Fn(&'static str, Actor) -> Scenario) {
    for (name, word) in names.into_iter().zip([Set, Clear, LogOut]) {
        scenario(name, word).explore();
    }
}

/// K-20, K-25.
#[test]
fn k_25_a_word_of_the_user_wins_over_a_refresh_wherever_it_falls() {
    let names = ["a login and a refresh", "a clear and a refresh", "a logout and a refresh"];
    for_each_word(names, |name, word| {
        Scenario::new(name, Start::Over, &[Get, Get, word])
            .holding(if is_deep() { &WHOLE_FLIGHT } else { &FLIGHT })
            .deviating(at_most(1, 2), &[Cancel])
    });
}

/// K-20, K-25: whoever goes on first of those who are woken together.
#[test]
fn k_25_whoever_goes_on_first() {
    let names = ["a login, in every order", "a clear, in every order", "a logout, in every order"];
    for_each_word(names, |name, word| {
        Scenario::new(name, Start::Over, &[Get, Refresh, word])
            .deviating(at_most(0, 1), &REFRESH_FAILS)
            .in_every_order()
    });
}

/// K-25: the last one.
#[test]
fn k_25_the_users_last_word_is_in_memory_and_in_the_store() {
    for (name, words) in [
        ("a login after a login", [Set, Set]),
        ("a logout and a login", [LogOut, Set]),
        ("a clear and a login", [Clear, Set]),
    ] {
        Scenario::new(name, Start::Over, &[Get, words[0], words[1]])
            .holding(&[Door::Refresh, Door::Write])
            .deviating(at_most(1, 2), &[&WRITE_FAILS[..], &[Cancel]].concat())
            .explore();
    }
}

/// K-20, K-24, K-35.
#[test]
fn k_24_however_a_refresh_fails_everybody_gets_an_answer() {
    Scenario::new("a refresh that fails", Start::Over, &[Get, Get, Refresh])
        .deviating(at_most(2, 3), &[&REFRESH_FAILS[..], &[TimePasses]].concat())
        .explore();
    Scenario::new("a refresh that fails, no store", Start::Over, &[Get, Get, LogOut])
        .deviating(at_most(2, 3), &[&REFRESH_FAILS[..], &[TimePasses]].concat())
        .without_store()
        .explore();
}

/// K-24, K-60.
#[test]
fn k_60_however_the_store_fails_no_pair_is_used_too_early_or_lost() {
    let deviations = [&READ_FAILS[..], &WRITE_FAILS, &[TimePasses]].concat();
    Scenario::new("a store that fails", Start::Over, &[Get, Refresh])
        .holding(&[Door::Load, Door::Lock, Door::Refresh, Door::Write])
        .deviating(at_most(2, 3), &deviations)
        .explore();
}

/// K-07, K-25.
#[test]
fn k_07_a_refresh_token_that_comes_alone_is_kept_unless_the_user_has_spoken() {
    let names = ["its login", "its clear", "its logout"];
    for_each_word(names, |name, word| {
        let deviations = [&WRITE_FAILS[..], &[At(Door::Refresh, RefreshTokenOnly)]].concat();
        Scenario::new(name, Start::Over, &[Get, word])
            .holding(&[Door::Refresh, Door::Write])
            .deviating(at_most(2, 3), &deviations)
    });
}

/// K-21.
#[test]
fn k_21_whoever_goes_away_changes_nothing_for_the_others() {
    Scenario::new("requests that go away", Start::Over, &[Get, GetAnew, Refresh])
        .holding(&FLIGHT)
        .deviating(at_most(1, 2), &[Cancel])
        .explore();
}

/// K-22, K-36, K-40.
#[test]
fn k_40_a_rejected_request_is_sent_once_more_with_another_token() {
    Scenario::new("rejected requests", Start::Rejected, &[Get, Get])
        .holding(&[Door::Api, Door::Refresh])
        .deviating(at_most(1, 2), &[&REFRESH_FAILS[..], &[At(Door::Api, Rejects), Cancel]].concat())
        .explore();
    let names = ["a rejection and a login", "a rejection and a clear", "a rejection and a logout"];
    for_each_word(names, |name, word| {
        Scenario::new(name, Start::Rejected, &[Get, word])
            .holding(&[Door::Api, Door::Load, Door::Refresh, Door::Write])
            .deviating(at_most(1, 2), &[At(Door::Api, Rejects), Cancel])
    });
}

/// K-25, K-50, K-51.
#[test]
fn k_50_the_hook_is_called_once_for_a_dead_session() {
    let deviations = [At(Door::Hook, None), At(Door::Hook, Panics), TimePasses, Cancel];
    let names = ["a hook and a login", "a hook and a clear", "a hook and a logout"];
    for_each_word(names, |name, word| {
        Scenario::new(name, Start::Dead, &[Get, Get, word])
            .holding(&[Door::Hook, Door::Refresh, Door::Write])
            .deviating(at_most(1, 2), &deviations)
    });
}

/// K-53, K-61.
#[test]
fn k_61_a_sibling_that_shares_the_store_shares_the_refresh() {
    Scenario::new("a sibling", Start::Over, &[Get, Get, Sibling])
        .holding(&[Door::Load, Door::Lock, Door::Refresh, Door::Write])
        .deviating(at_most(1, 2), &[LeaseEnds, Cancel, At(Door::Write, Fails)])
        .explore();
    let names = ["a sibling and a login", "a sibling and a clear", "a sibling and a logout"];
    for_each_word(names, |name, word| {
        Scenario::new(name, Start::Over, &[Get, Sibling, word])
            .holding(&FLIGHT)
            .deviating(at_most(1, 2), &[LeaseEnds])
    });
}

/// K-25, K-28.
#[test]
fn k_28_the_first_look_into_the_store() {
    let deviations = [At(Door::Load, Fails), At(Door::Load, Panics), TimePasses];
    let names = ["a first use and a login", "a first use and a clear", "a first use and a logout"];
    for_each_word(names, |name, word| {
        Scenario::new(name, Start::FirstUse, &[Get, Refresh, word])
            .holding(&FLIGHT)
            .deviating(at_most(1, 2), &deviations)
    });
}

/// K-25: what was on its way is revoked, too.
#[test]
fn k_25_a_logout_leaves_nothing_alive_that_it_does_not_report() {
    let deviations = [
        At(Door::Refresh, Lost),
        At(Door::Refresh, RefreshTokenOnly),
        At(Door::Revoke, Fails),
        At(Door::Revoke, Panics),
        TimePasses,
        Cancel,
    ];
    Scenario::new("a logout", Start::Over, &[Get, LogOut])
        .holding(&[Door::Load, Door::Refresh, Door::Revoke, Door::Write])
        .deviating(at_most(1, 2), &[&deviations[..], &WRITE_FAILS].concat())
        .explore();
    Scenario::new("a logout behind a login", Start::Over, &[Refresh, Set, LogOut])
        .holding(&[Door::Refresh, Door::Revoke, Door::Write])
        .explore();
}

/// K-21, K-27.
#[test]
fn k_27_a_stale_token_is_used_while_it_is_refreshed() {
    Scenario::new("a stale token", Start::Stale, &[Get, GetAnew, Settle])
        .holding(&FLIGHT)
        .deviating(at_most(1, 2), &[&REFRESH_FAILS[..], &WRITE_FAILS, &[TimePasses]].concat())
        .explore();
}
