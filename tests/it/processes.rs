//! Many processes, one session: real processes over a real store, and a server that ends the session
//! of whoever uses a refresh token twice.
//!
//! `cargo test` runs a short form; over Redis, where there is a `redis-server`:
//!
//! ```text
//! cargo test --all-features --test it -- --ignored processes::k_6
//! ```
//!
//! The long form takes minutes, and says its figures:
//!
//! ```text
//! cargo test --all-features --test it -- --ignored --nocapture --test-threads=1 processes::long
//! ```
//!
//! The instants at which processes are killed are drawn by a seed that is printed, and can be given
//! back as `REQWEST_REFRESH_TEST_SEED`; the machine does its part too.

use std::env;
use std::fmt;
use std::fs;
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    Crowd, Moment, Outcome, Place, RedisServer, RotatingServer, TokenRequest, Went, access_token,
    play,
};

#[tokio::test]
#[ignore = "a process of the other tests; alone it does nothing"]
async fn child() {
    play().await;
}

/// K-20, K-61, Q-50.
#[tokio::test(flavor = "multi_thread")]
async fn k_61_processes_that_share_a_file_refresh_once_in_each_life_of_a_token() {
    let folder = Folder::new();
    live(8, folder.place()).await;
}

/// K-24, K-61, K-62, Q-50, Q-60.
#[tokio::test(flavor = "multi_thread")]
async fn k_62_kills_lose_only_what_was_rotated_and_not_saved() {
    let folder = Folder::new();
    kill(8, 10, folder.place(), RotatingServer::strict().await).await;
    folder.has_no_drafts();
}

/// K-24, K-61, K-62, Q-50.
#[tokio::test(flavor = "multi_thread")]
async fn k_62_where_the_server_has_a_grace_period_kills_lose_nothing() {
    let folder = Folder::new();
    kill(8, 10, folder.place(), RotatingServer::with_grace().await).await;
    folder.has_no_drafts();
}

/// K-20, K-24, K-61, K-62, Q-50, Q-60.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_62_with_redis_it_is_the_same() {
    let redis = RedisServer::start().await;
    let place = Place::Redis(redis.url(), LEASE);
    live(8, place.clone()).await;
    kill(8, 10, place.clone(), RotatingServer::strict().await).await;
    kill(8, 10, place, RotatingServer::with_grace().await).await;
}

/// K-61, Q-50: its answer comes when another process has refreshed already.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_with_redis_a_process_that_was_paused_beyond_its_lease_overwrites_nothing() {
    let redis = RedisServer::start().await;
    let (place, server) = (Place::Redis(redis.url(), LEASE), RotatingServer::with_grace().await);
    let mut crowd = Crowd::start(4, place.clone(), &server).await;
    crowd.advance(OVER).await;
    let mut trap = server.trap(Moment::AfterRotation);
    crowd.go(2).await;
    let paused = trap.caught().await;
    crowd.signal(paused, "STOP").await;
    trap.release();

    let others = crowd.names().into_iter().filter(|name| *name != paused).collect();
    let answers = crowd.answers_of(others).await;
    assert!(answers.iter().all(Went::is_good), "{answers:?}");
    let stored = place.load().await.unwrap();
    assert_eq!(stored.access_token(), access_token(3));

    crowd.signal(paused, "CONT").await;
    let answers = crowd.answers_of(vec![paused]).await;
    assert!(answers.iter().all(Went::is_good), "{answers:?}");
    assert!(place.load().await.unwrap().same_tokens(&stored));
    let sent: Vec<_> = server.take_requests().iter().map(|it| (it.sent, it.outcome)).collect();
    assert_eq!(sent, [(1, Outcome::Rotated(2)), (1, Outcome::Rotated(3))]);
}

/// K-20, K-24, K-61, K-62, Q-50, Q-60. In each pattern of five kills, four are of the holder of the
/// lease.
mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "takes a minute"]
    async fn k_62_over_a_file() {
        let folder = Folder::new();
        println!("32 processes over a file");
        live(32, folder.place()).await;
        kill(32, 250, folder.place(), RotatingServer::strict().await).await;
        kill(32, 50, folder.place(), RotatingServer::with_grace().await).await;
        folder.has_no_drafts();
    }

    /// Over Redis; its name keeps it out of the shorter tests with Redis.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "takes minutes, and redis-server"]
    async fn k_62_in_a_fleet() {
        let redis = RedisServer::start().await;
        let place = Place::Redis(redis.url(), LEASE);
        println!("32 processes over Redis, with leases of {LEASE:?}");
        live(32, place.clone()).await;
        kill(32, 250, place.clone(), RotatingServer::strict().await).await;
        kill(32, 50, place, RotatingServer::with_grace().await).await;
    }
}

/// Everybody meets an expired token at once, five times.
async fn live(processes: usize, place: Place) {
    let server = RotatingServer::strict().await;
    let mut crowd = Crowd::start(processes, place, &server).await;
    for life in 1..=5 {
        crowd.advance(OVER).await;
        let start = Instant::now();
        crowd.go(4).await;
        let answers = crowd.answers().await;
        println!("life {life}: all have their answers after {:.0?}", start.elapsed());
        assert!(answers.iter().all(Went::is_good), "life {life}: {answers:?}");
        let requests = server.take_requests();
        let once = |request: &TokenRequest| matches!(request.outcome, Outcome::Rotated(_));
        assert!(requests.len() == 1 && requests.iter().all(once), "life {life}: {requests:?}");
    }
    assert_eq!(server.rejected(), 0, "nobody sends a token that is over");
}

/// Kills so many processes, one after the other, each in a round of its own.
async fn kill(processes: usize, kills: usize, place: Place, server: RotatingServer) {
    let seed = env::var("REQWEST_REFRESH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{kills} kills, {}; seed {seed}", if server.has_grace() { "grace" } else { "strict" });
    let crowd = Crowd::start(processes, place.clone(), &server).await;
    let mut trial = Trial { crowd, place, server, random: Rng::with_seed(seed) };
    let mut rounds = Vec::new();
    for number in 0..kills {
        let phase = PATTERN[number % PATTERN.len()];
        let round = trial.round(phase).await;
        round.check(trial.server.has_grace());
        trial.mend(&round).await;
        rounds.push(round);
    }
    for phase in [Phase::Request, Phase::Answer, Phase::Save, Phase::Whenever] {
        println!("{}", Figures::of(&rounds, phase));
    }
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The holder of the lease, before the server rotates.
    Request,
    /// The holder of the lease, after the server has rotated and before its answer is sent.
    Answer,
    /// The holder of the lease, within milliseconds of the answer.
    Save,
    /// Anybody, at some time after everybody met the expired token.
    Whenever,
}

const PATTERN: [Phase; 5] =
    [Phase::Request, Phase::Answer, Phase::Save, Phase::Save, Phase::Whenever];

/// Longer than a token lives.
const OVER: Duration = RotatingServer::LIFE.saturating_add(Duration::from_secs(60));
/// After this a dead session looks into the store again.
const LATER: Duration = Duration::from_secs(30);

/// In Redis. Beyond it, whoever died is not waited for.
const LEASE: Duration = Duration::from_millis(500);

/// A crowd in which somebody is killed again and again.
struct Trial {
    crowd: Crowd,
    place: Place,
    server: RotatingServer,
    random: Rng,
}

/// What happened.
#[derive(Debug)]
struct Round {
    phase: Phase,
    /// What the one who was killed got from the server, whether or not it arrived.
    rotated: Option<u32>,
    /// Whether that was in the store.
    is_saved: bool,
    requests: Vec<TokenRequest>,
    /// Of those who live.
    answers: Vec<Went>,
    killed_at: Instant,
}

impl Trial {
    async fn round(&mut self, phase: Phase) -> Round {
        self.crowd.advance(OVER).await;
        let mut trap = self.server.trap(match phase {
            Phase::Request => Moment::BeforeRotation,
            Phase::Answer => Moment::AfterRotation,
            Phase::Save | Phase::Whenever => Moment::Answering,
        });
        self.crowd.go(2).await;
        let victim = match phase {
            Phase::Request | Phase::Answer => trap.caught().await,
            Phase::Save => {
                let holder = trap.caught().await;
                self.pause(Duration::from_millis(20)).await;
                holder
            }
            Phase::Whenever => {
                let names = self.crowd.names();
                self.pause(Duration::from_millis(5) * names.len() as u32).await;
                self.random.choice(names).unwrap()
            }
        };
        let killed_at = self.crowd.kill(victim).await;
        let answers = self.crowd.answers().await;
        let requests = self.server.take_requests();
        let rotated = requests.iter().find_map(|request| match request.outcome {
            Outcome::Rotated(pair) if request.client == victim => Some(pair),
            _ => None,
        });
        let is_saved = match rotated {
            Some(pair) => self.holds(pair).await || requests.iter().any(|it| it.sent == pair),
            None => false,
        };
        Round { phase, rotated, is_saved, requests, answers, killed_at }
    }

    /// Logs in if the session is lost, and puts another process in the place of the dead one: then
    /// all have tokens.
    async fn mend(&mut self, round: &Round) {
        let mut answers = Vec::new();
        if round.is_lost() {
            self.crowd.log_in().await;
            self.crowd.advance(LATER).await;
            self.crowd.go(1).await;
            answers = self.crowd.answers().await;
        }
        answers.push(self.crowd.join().await);
        assert!(answers.iter().all(Went::is_good), "{answers:?} after {round:?}");
        let requests = self.server.take_requests();
        assert!(requests.is_empty(), "{requests:?} after {round:?}");
    }

    /// Whether this pair is in the store.
    async fn holds(&self, pair: u32) -> bool {
        let stored = self.place.load().await.expect("nobody logs out");
        stored.access_token() == access_token(pair)
    }

    /// Some part of `most`, to the microsecond.
    async fn pause(&mut self, most: Duration) {
        let pause = most.mul_f64(self.random.f64());
        let pausing = tokio::task::spawn_blocking(move || std::thread::sleep(pause));
        pausing.await.unwrap();
    }
}

impl Round {
    /// Whether somebody must log in.
    fn is_lost(&self) -> bool {
        !self.answers.iter().all(Went::is_good)
    }

    /// From the death of the holder to the first answer of somebody else who has refreshed.
    fn took_over_in(&self) -> Option<Duration> {
        let is_takeover = self.phase != Phase::Whenever && !self.is_saved && !self.is_lost();
        let first = self.answers.iter().map(|went| went.at).min().filter(|_| is_takeover);
        first.map(|first| first.saturating_duration_since(self.killed_at))
    }

    fn check(&self, has_grace: bool) {
        let may_be_lost = self.rotated.is_some() && !self.is_saved && !has_grace;
        assert_eq!(self.is_lost(), may_be_lost, "{self:?}");
        let count = |of: fn(&Outcome) -> bool| {
            self.requests.iter().filter(|request| of(&request.outcome)).count()
        };
        let rotations = count(|outcome| matches!(outcome, Outcome::Rotated(_)));
        let reuses = count(|outcome| *outcome == Outcome::Reused);
        if self.is_lost() {
            // The first to take over; everybody else then hears the same, once.
            assert_eq!((rotations, reuses), (1, 1), "{self:?}");
            assert_eq!(self.requests.len(), 1 + self.answers.len(), "{self:?}");
            assert!(self.answers.iter().all(Went::wants_login), "{self:?}");
        } else {
            let again = usize::from(self.rotated.is_some() && !self.is_saved);
            assert_eq!((rotations, reuses), (1 + again, 0), "{self:?}");
            assert_eq!(self.requests.len(), rotations, "{self:?}");
        }
    }
}

/// What became of the rounds of one phase.
struct Figures {
    phase: Phase,
    rounds: usize,
    rotated: usize,
    saved: usize,
    lost: usize,
    took_over_in: Vec<Duration>,
}

impl Figures {
    fn of(rounds: &[Round], phase: Phase) -> Self {
        let rounds: Vec<_> = rounds.iter().filter(|round| round.phase == phase).collect();
        let count = |of: fn(&Round) -> bool| rounds.iter().filter(|round| of(round)).count();
        let mut took_over_in: Vec<_> =
            rounds.iter().filter_map(|round| round.took_over_in()).collect();
        took_over_in.sort_unstable();
        Self {
            phase,
            rounds: rounds.len(),
            rotated: count(|round| round.rotated.is_some()),
            saved: count(|round| round.is_saved),
            lost: count(Round::is_lost),
            took_over_in,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, rounds, rotated, saved, lost, took_over_in } = self;
        write!(f, "{phase:?}: {rounds} killed, {rotated} had rotated, {saved} saved; {lost} lost")?;
        match took_over_in[..] {
            [.., most] => {
                let median = took_over_in[took_over_in.len() / 2];
                write!(f, "; taken over in {median:.1?} (median), {most:.1?} (at most)")
            }
            [] => Ok(()),
        }
    }
}

/// A folder with the tokens, which goes with the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn place(&self) -> Place {
        Place::File(self.0.path().join("tokens.json").to_str().unwrap().to_owned())
    }

    /// Nothing is left of a save that was cut off.
    fn has_no_drafts(&self) {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["tokens.json", "tokens.json.lock", "tokens.json.write-lock"]);
    }
}
