use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::error::ErrorKind;
use crate::proto::policy::tests::policy;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn set_of(number: u32) -> TokenSet {
    TokenSet::new(format!("a{number}"))
        .with_refresh_token(format!("r{number}"))
        .with_expires_in(HOUR)
}

/// A state, and the clock that it is asked by.
struct Bench {
    clock: ManualClock,
    state: State,
    policy: Policy,
}

impl Bench {
    /// With a store that has been read and was empty.
    fn new() -> Self {
        let clock = ManualClock::new();
        let mut state = State::new(true);
        let ticket = state.launch(Cause::FirstUse);
        let now = Clock::Manual(clock.clone()).now();
        state.after_read(&ticket, None, &policy(), now);
        state.land();
        Self { clock, state, policy: policy() }
    }

    fn now(&self) -> Moment {
        Clock::Manual(self.clock.clone()).now()
    }

    /// With a token of this age; `none` for no token.
    fn aged(age: &str) -> Self {
        let mut bench = Self::new();
        if age == "none" {
            return bench;
        }
        let now = bench.now();
        bench.state.start_with(set_of(0), &bench.policy, now).unwrap();
        bench.clock.advance(match age {
            "fresh" => 2000 * SECOND,
            "stale" => HOUR - 30 * SECOND,
            "expired" => HOUR,
            "rejected" => Duration::ZERO,
            other => panic!("{other}"),
        });
        if age == "rejected" {
            let sent = Some(bench.state.generation());
            let now = bench.now();
            bench.state.after_rejection(sent, true, &bench.policy, now);
        }
        bench
    }

    fn stand(&mut self, standing: &str) {
        let ticket = self.state.launch(Cause::Stale);
        self.state.land();
        let now = self.now();
        match standing {
            "good" => {}
            "cooling" => {
                let error = Error::new(ErrorKind::Unavailable, "down");
                self.state.fail(&ticket, 5 * SECOND, error, now);
            }
            "cooled" => {
                let error = Error::new(ErrorKind::Unavailable, "down");
                self.state.fail(&ticket, Duration::ZERO, error, now);
            }
            "dead" => {
                let error = Error::login_required(LoginReason::NoRefreshToken);
                assert!(self.state.die(&ticket, error, now));
            }
            "look" => {
                self.stand("dead");
                let standing = self.state.past_mut().standing.as_deref_mut();
                let Some(Standing::Dead { next_look, .. }) = standing else { unreachable!() };
                *next_look = now;
            }
            other => panic!("{other}"),
        }
    }

    fn before(&self, need: &Need) -> String {
        let verdict = self.state.before_request(need, &self.policy, self.now());
        match verdict {
            BeforeRequest::Fail(error) => match error.kind() {
                ErrorKind::Unavailable => "wait".into(),
                ErrorKind::LoginRequired(_) => "login".into(),
                ErrorKind::ExcessiveRefresh => "excess".into(),
                other => format!("{other:?}"),
            },
            BeforeRequest::Join => "join".into(),
            BeforeRequest::Launch(cause) => format!("{cause:?}"),
            BeforeRequest::Send(_) => "send".into(),
            BeforeRequest::SendAndLaunch(_, cause) => format!("send+{cause:?}"),
            BeforeRequest::SendBare => "bare".into(),
        }
    }

    fn after_rejection(&mut self, sent: Option<Generation>, replayable: bool) -> AfterRejection {
        let now = self.now();
        self.state.after_rejection(sent, replayable, &self.policy, now)
    }
}

fn need(name: &str) -> Need {
    match name {
        "any" => Need::ANY,
        "new" => Need { new: true, ..Need::ANY },
        "optional" => Need { optional: true, ..Need::ANY },
        "long" => Need { valid_for: HOUR, ..Need::ANY },
        "one-shot" => Need { replayable: false, ..Need::ANY },
        other => panic!("{other}"),
    }
}

/// K-06, K-11, K-20, K-22, K-27, K-34, K-35, K-36, K-43, K-51, K-52; D01, D05, D07, X16: every age
/// with every need, in every standing, with and without a flight.
///
/// `wait` fails with the cool-down's error, `login` with the dead session's; `join` waits for the
/// flight that runs, a cause waits for one that it starts, `send+` starts it behind the request.
#[rustfmt::skip] // a table
#[test]
fn k_27_what_a_request_does_is_a_table() {
    const STANDINGS: [&str; 5] = ["good", "cooling", "cooled", "dead", "look"];
    for (age, needed, without_flight, with_flight) in [
        //                     good        cooling cooled      dead    look            good   cooling cooled dead   look
        ("fresh", "any",      "send       send    send        send    send",          "send   send   send   send   send"),
        ("fresh", "new",      "Forced     wait    Forced      login   Revival",       "join   join   join   join   join"),
        ("fresh", "optional", "send       send    send        send    send",          "send   send   send   send   send"),
        ("fresh", "long",     "Stale      send    Stale       send    Revival",       "join   join   join   send   send"),
        ("fresh", "one-shot", "send       send    send        send    send",          "send   send   send   send   send"),
        ("stale", "any",      "send+Stale send    send+Stale  send    send",          "send   send   send   send   send"),
        ("stale", "new",      "Forced     wait    Forced      login   Revival",       "join   join   join   join   join"),
        ("stale", "optional", "send+Stale send    send+Stale  send    send",          "send   send   send   send   send"),
        ("stale", "long",     "Stale      send    Stale       send    Revival",       "join   join   join   send   send"),
        ("stale", "one-shot", "Stale      send    Stale       send    Revival",       "join   join   join   send   send"),
        ("expired", "any",      "Expired  wait    Expired     login   Revival",       "join   join   join   join   join"),
        ("expired", "new",      "Expired  wait    Expired     login   Revival",       "join   join   join   join   join"),
        ("expired", "optional", "Expired  wait    Expired     bare    Revival",       "join   join   join   join   join"),
        ("expired", "long",     "Expired  wait    Expired     login   Revival",       "join   join   join   join   join"),
        ("expired", "one-shot", "Expired  wait    Expired     login   Revival",       "join   join   join   join   join"),
        ("rejected", "any",      "Rejected wait   Rejected    login   Revival",       "join   join   join   join   join"),
        ("rejected", "new",      "Rejected wait   Rejected    login   Revival",       "join   join   join   join   join"),
        ("rejected", "optional", "Rejected wait   Rejected    bare    Revival",       "join   join   join   join   join"),
        ("rejected", "long",     "Rejected wait   Rejected    login   Revival",       "join   join   join   join   join"),
        ("rejected", "one-shot", "Rejected wait   Rejected    login   Revival",       "join   join   join   join   join"),
        ("none", "any",      "NoToken    wait    NoToken     login   Revival",         "join   join   join   join   join"),
        ("none", "new",      "NoToken    wait    NoToken     login   Revival",         "join   join   join   join   join"),
        ("none", "optional", "bare       bare    bare        bare    bare",            "bare   bare   bare   bare   bare"),
        ("none", "long",     "NoToken    wait    NoToken     login   Revival",         "join   join   join   join   join"),
        ("none", "one-shot", "NoToken    wait    NoToken     login   Revival",         "join   join   join   join   join"),
    ] {
        for (flies, verdicts) in [(false, without_flight), (true, with_flight)] {
            for (standing, expected) in STANDINGS.iter().zip(verdicts.split_whitespace()) {
                let mut bench = Bench::aged(age);
                bench.stand(standing);
                if flies {
                    bench.state.launch(Cause::Stale);
                }
                let verdict = bench.before(&need(needed));
                assert_eq!(verdict, expected, "{age}, {needed}, {standing}, flight: {flies}");
            }
        }
    }
}

/// K-27, K-43, Q-57: where a refresh ends the old token at once, a request that can be sent only
/// once waits for it, however fresh the old token is.
#[test]
fn k_27_a_one_shot_request_does_not_race_a_refresh_that_ends_its_token() {
    for (age, needed, expected) in [
        ("fresh", "one-shot", "join"),
        ("fresh", "any", "send"),
        ("stale", "one-shot", "join"),
        ("stale", "any", "send"),
    ] {
        let mut bench = Bench::aged(age);
        bench.policy.refresh_revokes_access_token = true;
        let without = bench.before(&need("one-shot"));
        assert_eq!(without, if age == "fresh" { "send" } else { "Stale" }, "no flight, {age}");
        bench.state.launch(Cause::Forced);
        assert_eq!(bench.before(&need(needed)), expected, "{age}, {needed}");
        bench.state.land();
        bench.stand("dead");
        bench.state.launch(Cause::Revival);
        assert_eq!(bench.before(&need(needed)), "send", "{age}, {needed}: a person may be asked");
    }
}

/// K-28, C16, C19, K-20: before the store was read once, everybody waits for that, whatever
/// they need.
#[test]
fn k_28_the_store_is_read_before_anything_else() {
    for (case, has_tokens) in [("nothing else known", false), ("tokens given at build", true)] {
        for needed in ["any", "new", "optional", "long", "one-shot"] {
            let mut bench = Bench::new();
            bench.state = State::new(true);
            if has_tokens {
                let now = bench.now();
                bench.state.start_with(set_of(0), &bench.policy, now).unwrap();
            }
            assert_eq!(bench.before(&need(needed)), "FirstUse", "{case}, {needed}");
            bench.state.launch(Cause::FirstUse);
            assert_eq!(bench.before(&need(needed)), "join", "{case}, {needed}");
        }
    }
    let mut bench = Bench::new();
    bench.state = State::new(true);
    let now = bench.now();
    bench.state.set(set_of(1), &bench.policy, now).unwrap();
    assert_eq!(bench.before(&Need::ANY), "send", "an explicit set needs no read");
    bench.state = State::new(true);
    bench.state.clear(false);
    assert_eq!(bench.before(&Need::ANY), "NoToken", "nor does a clear");
    bench.state = State::new(true);
    bench.state.read_failed(now);
    assert_eq!(bench.before(&Need::ANY), "NoToken", "a store that fails is left alone");
    bench.clock.advance(NEXT_LOOK);
    assert_eq!(bench.before(&Need::ANY), "FirstUse", "for a while");
}

/// K-36, K-52, D07: a token that is alive is used up, however little can follow it.
#[test]
fn k_36_a_token_that_cannot_be_refreshed_is_used_while_it_lives() {
    for (age, needed, expected) in [
        ("fresh", "any", "send"),
        ("fresh", "long", "send"),
        ("stale", "any", "send"),
        ("stale", "long", "send"),
        ("stale", "one-shot", "send"),
        ("stale", "new", "Forced"),
        ("expired", "any", "Expired"),
        ("rejected", "any", "Rejected"),
    ] {
        let mut bench = Bench::aged(age);
        let credential = bench.state.credential.as_mut().unwrap();
        let tokens = &mut Arc::get_mut(credential).unwrap().tokens;
        *tokens = tokens.clone().with_refresh_token("");
        assert_eq!(bench.before(&need(needed)), expected, "{age}, {needed}");
        bench.policy.needs_refresh_token = false;
        let without = match (age, needed) {
            ("fresh", "any") => "send",
            ("stale", "any") => "send+Stale",
            ("fresh" | "stale", "long" | "one-shot") => "Stale",
            _ => expected,
        };
        assert_eq!(bench.before(&need(needed)), without, "{age}, {needed}, no need of one");
    }
}

/// K-36, K-50, K-55: a refresh token is given up at its known end, and only where that is trusted.
#[test]
fn k_50_the_end_of_a_refresh_token_counts_where_it_is_trusted() {
    for (case, trusts, left, before, in_flight) in [
        ("over: asked all the same", false, Duration::ZERO, "send+Stale", None),
        ("trusted, not over yet", true, SECOND, "send+Stale", None),
        ("trusted, over", true, Duration::ZERO, "send", Some(LoginReason::RefreshTokenExpired)),
    ] {
        let mut bench = Bench::aged("stale");
        bench.policy.trust_refresh_expiry = trusts;
        let now = bench.now();
        let credential = bench.state.credential.as_mut().unwrap();
        let tokens = &mut Arc::get_mut(credential).unwrap().tokens;
        *tokens = tokens.clone().with_refresh_expires_at(now.wall + left);
        assert_eq!(bench.before(&Need::ANY), before, "{case}");
        let ticket = bench.state.launch(Cause::Stale);
        match bench.state.after_load(&ticket, None, &bench.policy, now) {
            AfterLoad::Login(reason) => assert_eq!(Some(reason), in_flight, "{case}"),
            AfterLoad::Refresh(_) => assert_eq!(None, in_flight, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
    }
}

/// K-26, E18, E19, E20, B14: two budgets, each for its own causes; reading a store costs none.
#[test]
fn k_26_a_spent_budget_stops_refreshes_of_its_own_kind() {
    for (age, needed, over_age, over_rejections) in [
        ("fresh", "any", "send", "send"),
        ("fresh", "new", "excess", "Forced"),
        ("fresh", "long", "send", "Stale"),
        ("stale", "any", "send", "send+Stale"),
        ("stale", "one-shot", "send", "Stale"),
        ("expired", "any", "excess", "Expired"),
        ("expired", "optional", "excess", "Expired"),
        ("rejected", "any", "Rejected", "excess"),
        ("none", "any", "NoToken", "NoToken"),
    ] {
        for (spends_rejections, expected) in [(false, over_age), (true, over_rejections)] {
            let mut bench = Bench::aged(age);
            let (limit, now) = (bench.policy.budget, bench.now());
            let budget = match spends_rejections {
                true => &mut bench.state.past_mut().rejection_budget,
                false => &mut bench.state.past_mut().budget,
            };
            budget.spend(limit, now);
            budget.spend(limit, now);
            let verdict = bench.before(&need(needed));
            assert_eq!(verdict, expected, "{age}, {needed}, rejections: {spends_rejections}");
        }
    }
}

/// K-22, K-26, K-40, K-43; E02, E04, E05, E06, E18, E23, Q-57.
#[rustfmt::skip] // a table
#[test]
fn k_22_what_follows_a_rejection_is_a_table() {
    use AfterRejection::{Refresh, RefreshBehind, Replay, Return};
    for (case, age, sent, twice, once) in [
        ("the current token", "fresh", "current", Refresh, RefreshBehind),
        ("the current token, stale", "stale", "current", Refresh, RefreshBehind),
        ("the current token, over meanwhile", "expired", "current", Refresh, RefreshBehind),
        ("the current token, by another request too", "rejected", "current", Refresh, RefreshBehind),
        ("an older token", "fresh", "older", Replay, Return),
        ("an older token, the current is over", "expired", "older", Replay, Return),
        ("sent without one, logged in since", "fresh", "without", Replay, Return),
        ("logged out since", "none", "older", Refresh, Return),
        ("sent without one, nobody logged in", "none", "without", Return, Return),
        ("too young to judge", "young", "current", Replay, Return),
        ("too young, but older than the minimum", "grown", "current", Refresh, RefreshBehind),
        ("the budget is spent", "spent", "current", Return, Return),
        ("the budget is spent, an older token", "spent", "older", Replay, Return),
    ] {
        for (replayable, expected) in [(true, twice), (false, once)] {
            let is_age = ["fresh", "stale", "expired", "rejected", "none"].contains(&age);
            let mut bench = Bench::aged(if is_age { age } else { "fresh" });
            match age {
                "young" => bench.policy.minimum_age = 2001 * SECOND,
                "grown" => bench.policy.minimum_age = 2000 * SECOND,
                "spent" => {
                    let (limit, now) = (bench.policy.rejection_budget, bench.now());
                    bench.state.past_mut().rejection_budget.spend(limit, now);
                    bench.state.past_mut().rejection_budget.spend(limit, now);
                }
                _ => {}
            }
            let sent = match sent {
                "current" => Some(bench.state.generation()),
                "older" => Some(Generation::default()),
                _ => None,
            };
            let was_rejected = bench.state.rejected;
            assert_eq!(bench.after_rejection(sent, replayable), expected, "{case}, {replayable}");
            let marks = matches!(expected, Refresh | RefreshBehind) && age != "none";
            assert_eq!(bench.state.rejected, was_rejected || marks, "{case}: only the current token is marked");
        }
    }
}

/// K-25, K-28, K-50, K-61, X01, C15: what a flight does with what the store holds.
#[rustfmt::skip] // a table
#[test]
fn k_61_what_a_flight_finds_in_the_store_is_a_table() {
    let bad = || TokenSet::new("a\n").with_refresh_token("r9");
    let dead = || set_of(9).with_expires_at(SystemTime::UNIX_EPOCH);
    let over = || set_of(0).with_refresh_expires_at(SystemTime::UNIX_EPOCH);
    for (case, age, current, seen, stored, expected) in [
        ("nothing new", "expired", set_of(0), Some(set_of(0)), Some(set_of(0)), "refresh r0"),
        ("nothing stored yet", "expired", set_of(0), None, None, "refresh r0"),
        ("rotated elsewhere", "expired", set_of(0), Some(set_of(0)), Some(set_of(9)), "adopt a9"),
        ("first seen now", "expired", set_of(0), None, Some(set_of(9)), "adopt a9"),
        ("rejected, rotated elsewhere", "rejected", set_of(0), Some(set_of(0)), Some(set_of(9)), "adopt a9"),
        ("rejected, and stored", "rejected", set_of(0), None, Some(set_of(0)), "refresh r0"),
        ("rotated, and over again", "expired", set_of(0), Some(set_of(0)), Some(dead()), "refresh r9"),
        ("only the refresh token is another", "expired", set_of(0), Some(set_of(0)), Some(set_of(0).with_refresh_token("r9")), "refresh r9"),
        ("logged out elsewhere", "expired", set_of(0), Some(set_of(0)), None, "login LoggedOut"),
        ("cannot be sent", "expired", set_of(0), None, Some(bad()), "store"),
        ("no token at all", "none", set_of(0), None, None, "login NeverLoggedIn"),
        ("no token, one stored", "none", set_of(0), None, Some(set_of(9)), "adopt a9"),
        ("no refresh token", "expired", set_of(0).with_refresh_token(""), None, None, "login NoRefreshToken"),
        ("refresh token over: asked all the same", "expired", over(), None, None, "refresh r0"),
    ] {
        let mut bench = Bench::aged(age);
        if age != "none" {
            let credential = bench.state.credential.as_mut().unwrap();
            Arc::get_mut(credential).unwrap().tokens = current;
        }
        bench.state.store.seen = seen;
        let ticket = bench.state.launch(Cause::Expired);
        let now = bench.now();
        let verdict = bench.state.after_load(&ticket, stored, &bench.policy, now);
        let verdict = match verdict {
            AfterLoad::Adopt(kept) => format!("adopt {}", kept.tokens.access_token()),
            AfterLoad::Fail(error) if matches!(error.kind(), ErrorKind::Store) => "store".into(),
            AfterLoad::Login(reason) => format!("login {reason:?}"),
            AfterLoad::Refresh(tokens) => format!("refresh {}", tokens.refresh_token().unwrap()),
            other => format!("{other:?}"),
        };
        assert_eq!(verdict, expected, "{case}");
    }
}

/// K-50: where no refresh token is needed, none is missed, and nobody has to log in.
#[test]
fn k_50_without_need_of_a_refresh_token_there_is_always_something_to_ask_for() {
    for (case, age, seen, stored, expected) in [
        ("no token at all", "none", None, None, ""),
        ("forgotten elsewhere", "expired", Some(set_of(0)), None, ""),
        ("over", "expired", Some(set_of(0)), Some(set_of(0)), "a0"),
    ] {
        let mut bench = Bench::aged(age);
        bench.policy.needs_refresh_token = false;
        bench.state.store.seen = seen;
        let ticket = bench.state.launch(Cause::Expired);
        let now = bench.now();
        match bench.state.after_load(&ticket, stored, &bench.policy, now) {
            AfterLoad::Refresh(tokens) => assert_eq!(tokens.access_token(), expected, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
    }
    let mut bench = Bench::aged("none");
    bench.policy.needs_refresh_token = false;
    assert_eq!(bench.before(&need("optional")), "NoToken", "a token can always be had");
}

/// K-25, K-51: a clear ends whatever runs and whatever was; only the login hook's own first step
/// does not make the hook lose, and only a login under way is not begun again.
#[test]
fn k_25_what_a_clear_leaves_is_a_table() {
    for (case, standing, flight, by_hook, loses, next) in [
        ("alive", "good", None, false, true, "NoToken"),
        ("by a hook that refreshes", "good", Some(Cause::Expired), true, true, "NoToken"),
        ("dead", "dead", None, false, true, "NoToken"),
        ("dead, looking for a login", "dead", Some(Cause::Revival), false, true, "NoToken"),
        ("dead, by the login hook", "dead", Some(Cause::Expired), true, false, "login"),
        ("dead, while the hook runs", "dead", Some(Cause::Expired), false, true, "login"),
    ] {
        let mut bench = Bench::aged("expired");
        bench.stand(standing);
        let ticket = bench.state.launch(flight.unwrap_or(Cause::Expired));
        if flight.is_none() {
            bench.state.land();
        }
        assert_eq!(bench.state.clear(by_hook), bench.state.generation(), "{case}");
        assert_eq!(!bench.state.is_current(&ticket), loses, "{case}");
        assert!(bench.state.credential().is_none(), "{case}");
        bench.state.land();
        assert_eq!(bench.before(&Need::ANY), next, "{case}");
    }
}

/// K-61: a store that has lost the current pair, as by a failover, has to get it again.
#[test]
fn k_61_a_store_that_has_gone_back_is_written_again() {
    for (case, unwritten) in
        [("saved once", Unwritten::Nothing), ("not saved yet", Unwritten::Refreshed)]
    {
        let mut bench = Bench::aged("expired");
        bench.state.past_mut().used_up = Some(set_of(9));
        bench.state.store.unwritten = unwritten;
        let ticket = bench.state.launch(Cause::Expired);
        let now = bench.now();
        let verdict = bench.state.after_load(&ticket, Some(set_of(9)), &bench.policy, now);
        let AfterLoad::Refresh(sent) = verdict else { panic!("{case}: {verdict:?}") };
        assert_eq!(sent.refresh_token(), Some("r0"), "{case}");
        assert!(bench.state.is_unsaved(), "{case}");
        let Over::Found(Some(found)) = bench.state.over() else { panic!("{case}") };
        assert_eq!(found.refresh_token(), Some("r9"), "{case}: over what was found");
    }
}

/// K-25, C15, C16, X24: who sets or clears while a flight is under way, wins over all its ends.
#[test]
fn k_25_a_flight_of_an_older_generation_changes_nothing() {
    type Act = fn(&mut Bench);
    for (case, act, expected) in [
        (
            "set",
            (|bench| {
                let now = bench.now();
                bench.state.set(set_of(5), &bench.policy, now).unwrap();
            }) as Act,
            Some("a5"),
        ),
        ("clear", |bench| _ = bench.state.clear(false), None),
    ] {
        let mut bench = Bench::aged("expired");
        let ticket = bench.state.launch(Cause::Expired);
        act(&mut bench);
        let (now, generation) = (bench.now(), bench.state.generation());
        let late = || {
            let generation = ticket.generation.next();
            Credential::new(generation, set_of(7), now, &policy()).unwrap()
        };
        let state = &mut bench.state;
        let verdict = state.after_load(&ticket, Some(set_of(8)), &bench.policy, now);
        assert!(matches!(verdict, AfterLoad::Superseded), "{case}");
        assert!(!state.publish(&ticket, Arc::new(late()), true), "{case}");
        state.replace_refresh_token(&ticket, late());
        state.failed(&ticket, true);
        assert!(!state.answer_lost(), "{case}: nor was an answer to the new set lost");
        state.after_read(&ticket, Some(set_of(8)), &bench.policy, now);
        let refusal = state.after_refusal(&ticket, &set_of(0), Some(set_of(8)), &bench.policy, now);
        assert!(refusal.is_none(), "{case}");
        let error = Error::new(ErrorKind::Unavailable, "down");
        state.fail(&ticket, HOUR, error.clone(), now);
        assert!(!state.die(&ticket, error, now), "{case}: the hook is not called");
        assert!(state.standing().is_none(), "{case}");
        assert_eq!(state.generation(), generation, "{case}");
        let token = state.credential().map(|kept| kept.tokens.access_token().to_owned());
        assert_eq!(token.as_deref(), expected, "{case}");
    }
}

/// K-07, K-12: the access token that a new refresh token comes behind is as old as it was, and no
/// other takes its age from it.
#[test]
fn k_07_a_new_refresh_token_changes_no_age() {
    for (case, access_token, age, existed_for) in [
        ("the current one", "a0", Age::Expired, HOUR),
        ("one that the store had", "a9", Age::Fresh, Duration::ZERO),
    ] {
        let mut bench = Bench::aged("expired");
        let ticket = bench.state.launch(Cause::Expired);
        let (now, tokens) = (bench.now(), TokenSet::new(access_token).with_refresh_token("r1"));
        let credential = Credential::new(ticket.generation, tokens, now, &bench.policy).unwrap();
        bench.state.replace_refresh_token(&ticket, credential);
        let current = bench.state.credential().unwrap();
        assert_eq!(current.tokens.refresh_token(), Some("r1"), "{case}");
        assert_eq!((current.age(&now), current.existed_for(&now)), (age, existed_for), "{case}");
    }
}

/// K-60, K-32: without its store a session refreshes what is known to be the newest, nothing else.
#[test]
fn k_60_what_is_known_without_the_store_is_a_table() {
    type Act = fn(&mut Bench);
    for (case, act, needs_refresh_token, expected) in [
        ("never looked", (|bench| bench.state = State::new(true)) as Act, true, false),
        ("never looked, needs nothing", |bench| bench.state = State::new(true), false, true),
        ("looked, nothing there", |_| {}, true, true),
        ("overtaken", |bench| bench.state.outrun(bench.state.generation()), true, false),
    ] {
        let mut bench = Bench::new();
        act(&mut bench);
        bench.policy.needs_refresh_token = needs_refresh_token;
        assert_eq!(bench.state.knows_what_to_refresh(&bench.policy), expected, "{case}");
    }
    assert!(Bench::aged("expired").state.knows_what_to_refresh(&policy()));
}

/// K-25, K-61: what has lost but was saved is what the store holds, and nothing else is.
#[test]
fn k_25_the_store_is_known_to_hold_what_was_saved_there() {
    for (case, has_store, is_saved, expected) in [
        ("saved", true, true, Some("r7")),
        ("not saved", true, false, None),
        ("no store", false, true, None),
    ] {
        let mut bench = Bench::new();
        bench.state = State::new(has_store);
        let ticket = bench.state.launch(Cause::NoToken);
        bench.state.clear(false);
        let now = bench.now();
        let late = Credential::new(ticket.generation.next(), set_of(7), now, &bench.policy);
        bench.state.publish(&ticket, Arc::new(late.unwrap()), is_saved);
        let seen = bench.state.last_seen();
        assert_eq!(seen.as_ref().and_then(TokenSet::refresh_token), expected, "{case}");
    }
}

/// K-35: each failure in a row makes the pause longer, until new tokens are there.
#[test]
fn k_35_failures_in_a_row_are_counted_until_new_tokens_are_there() {
    let mut bench = Bench::aged("expired");
    let next = |bench: &mut Bench| {
        let ticket = bench.state.launch(Cause::Expired);
        bench.state.land();
        let failure = crate::error::RefreshFailure::Unusable;
        bench.state.next_cool_down(&ticket, failure, None, &bench.policy).unwrap()
    };
    let (first, second, third) = (next(&mut bench), next(&mut bench), next(&mut bench));
    assert!(first < second && second < third, "{first:?} {second:?} {third:?}");
    let now = bench.now();
    bench.state.set(set_of(1), &bench.policy, now).unwrap();
    assert_eq!(next(&mut bench), first);
}

/// What can happen to a state.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Clear { by_hook: bool },
    Die,
    Fail,
    Interrupt,
    Land,
    Launch(Cause),
    Load(Option<u32>),
    Outrun,
    Pass(u32),
    Publish { number: u32, is_saved: bool },
    Read(Option<u32>),
    ReadFails,
    Reject { is_current: bool, replayable: bool },
    Rotate(u32),
    Set(u32),
    SetBack(u32),
    Start(u32),
    Suspend(u32),
}

fn happenings() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let number = || 0_u32..4;
    let stored = || prop::option::of(0_u32..4);
    let seconds = || prop_oneof![Just(1_u32), 1_u32..30, 3500_u32..3700];
    let causes = prop::sample::select(vec![
        Cause::Expired,
        Cause::FirstUse,
        Cause::Forced,
        Cause::NoToken,
        Cause::Rejected,
        Cause::Revival,
        Cause::Stale,
    ]);
    prop_oneof![
        any::<bool>().prop_map(|by_hook| Clear { by_hook }),
        Just(Die),
        Just(Fail),
        Just(Interrupt),
        Just(Land),
        causes.prop_map(Launch),
        stored().prop_map(Load),
        Just(Outrun),
        seconds().prop_map(Pass),
        (number(), any::<bool>()).prop_map(|(number, is_saved)| Publish { number, is_saved }),
        stored().prop_map(Read),
        Just(ReadFails),
        (any::<bool>(), any::<bool>())
            .prop_map(|(is_current, replayable)| Reject { is_current, replayable }),
        number().prop_map(Rotate),
        number().prop_map(Set),
        seconds().prop_map(SetBack),
        number().prop_map(Start),
        seconds().prop_map(Suspend),
    ]
}

impl Bench {
    /// Lets it happen, with `ticket` for what only a flight does; the ticket of a flight that it
    /// launches.
    fn happen(&mut self, happening: Happening, ticket: Ticket) -> Option<Ticket> {
        let now = self.now();
        let (state, policy) = (&mut self.state, &self.policy);
        let credential = |number| {
            let tokens = learn_ends(set_of(number), Provenance::Issued, now, policy);
            Credential::new(ticket.generation.next(), tokens, now, policy).unwrap()
        };
        let down = || Error::new(ErrorKind::Unavailable, "down");
        match happening {
            Happening::Clear { by_hook } => drop(state.clear(by_hook)),
            Happening::Die => {
                state.die(&ticket, Error::login_required(LoginReason::NoRefreshToken), now);
            }
            Happening::Fail => state.fail(&ticket, 5 * SECOND, down(), now),
            Happening::Interrupt => drop(state.interrupt(&ticket, down(), now)),
            Happening::Land => state.land(),
            Happening::Launch(cause) => {
                return state.flight.is_none().then(|| state.launch(cause));
            }
            Happening::Load(stored) => {
                drop(state.after_load(&ticket, stored.map(set_of), policy, now));
            }
            Happening::Outrun => state.outrun(ticket.generation),
            Happening::Pass(seconds) => self.clock.advance(SECOND * seconds),
            Happening::Publish { number, is_saved } => {
                state.publish(&ticket, Arc::new(credential(number)), is_saved);
            }
            Happening::Read(stored) => {
                drop(state.after_read(&ticket, stored.map(set_of), policy, now));
            }
            Happening::ReadFails => state.read_failed(now),
            Happening::Reject { is_current, replayable } => {
                let sent = is_current.then_some(state.generation);
                state.after_rejection(sent, replayable, policy, now);
            }
            Happening::Rotate(number) => {
                let mut credential = credential(number);
                credential.generation = ticket.generation;
                state.replace_refresh_token(&ticket, credential);
            }
            Happening::Set(number) => drop(state.set(set_of(number), policy, now)),
            Happening::SetBack(seconds) => self.clock.set_back(SECOND * seconds),
            Happening::Start(number) => drop(state.start_with(set_of(number), policy, now)),
            Happening::Suspend(seconds) => self.clock.suspend(SECOND * seconds),
        }
        None
    }
}

proptest! {
    /// K-12, K-27, K-28: whatever has happened, a token that the quick look finds fresh at a moment
    /// soon is the one that the long way sends now; and the quick look is for nothing but a plain
    /// request.
    #[test]
    fn k_27_the_quick_look_says_nothing_that_the_long_way_does_not(
        (has_store, needs_refresh_token, revokes) in any::<(bool, bool, bool)>(),
        happenings in prop::collection::vec((happenings(), 0_u64..3000, any::<bool>()), 1..40),
    ) {
        let mut bench = Bench::new();
        bench.state = State::new(has_store);
        bench.policy.needs_refresh_token = needs_refresh_token;
        bench.policy.refresh_revokes_access_token = revokes;
        let mut ticket = Ticket { generation: bench.state.generation, cause: Cause::Stale };
        for (happening, ahead, is_of_now) in happenings {
            ticket = bench.happen(happening, ticket).unwrap_or(ticket);
            if is_of_now {
                ticket.generation = bench.state.generation;
            }
            let now = bench.now();
            let soon = now.after(Duration::from_millis(ahead));
            if let Some(found) = bench.state.fresh(&Need::ANY, &soon) {
                let verdict = bench.state.before_request(&Need::ANY, &bench.policy, now);
                let is_sent =
                    matches!(&verdict, BeforeRequest::Send(sent) if Arc::ptr_eq(sent, found));
                prop_assert!(is_sent, "{verdict:?}");
            }
            for name in ["new", "optional", "long", "one-shot"] {
                prop_assert!(bench.state.fresh(&need(name), &soon).is_none(), "{name}");
            }
        }
    }
}
