//! One execution: steps are chosen and taken, each until everybody rests, and promises are checked.

use std::sync::{Arc, LazyLock};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{Session, TokenStore as _};

use crate::interleavings::cast::{Acting, work_of};
use crate::interleavings::choices::Choices;
use crate::interleavings::ledger::{LIFE, number_of, stored, tokens_of};
use crate::interleavings::scenario::{Actor, Answer, Deviation, Door, Scenario, Start};
use crate::interleavings::world::{Operation, World, name_of};
use crate::support::SECOND;

/// More steps than any execution needs.
const MOST_STEPS: usize = 200;

/// The API answers before it: one is enough, and making one takes a while.
static UNUSED: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

/// What an execution has come to.
#[derive(Default)]
pub struct Ending {
    pub steps: usize,
    pub deviations: Vec<Deviation>,
    /// What became of the actors, in their order.
    pub outcomes: Vec<String>,
    pub trace: Vec<String>,
    pub broken_promises: Vec<String>,
}

/// Something that may happen next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Answer(usize, Operation, Answer),
    Begin(usize),
    Cancel(usize),
    LeaseEnds,
    /// As a deviation, or because there is nothing else to wait for.
    TimePasses(bool),
}

/// A word of the user.
#[derive(Clone, Copy)]
pub struct Word {
    pub actor: usize,
    pub number: usize,
    pub step: usize,
}

/// The stage.
pub struct Play<'a> {
    pub scenario: &'a Scenario,
    choices: &'a mut Choices,
    pub world: World,
    pub session: Session,
    client: ClientWithMiddleware,
    pub cast: Vec<Acting>,
    pub words: Vec<Word>,
}

/// One execution of the scenario, by these choices.
pub fn play(scenario: &Arc<Scenario>, choices: &mut Choices) -> Ending {
    fastrand::seed(7); // backoffs are random
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut play = Play::new(scenario, choices).await;
        let steps = play.go_on().await;
        play.epilogue().await;
        let ledger = std::mem::take(&mut *play.world.ledger());
        let outcomes = play.cast.iter().map(|acting| acting.outcome.clone().unwrap_or_default());
        Ending {
            steps,
            deviations: ledger.deviations.iter().map(|(_, deviation)| *deviation).collect(),
            outcomes: outcomes.collect(),
            trace: ledger.trace,
            broken_promises: ledger.broken_promises,
        }
    })
}

impl<'a> Play<'a> {
    async fn new(scenario: &'a Arc<Scenario>, choices: &'a mut Choices) -> Self {
        let world = World::new(scenario);
        let seed = world.ledger().root(world.clock.wall());
        world.ledger().pairs[seed].is_written = true;
        let builder = Session::builder(world.clone()).clock(world.clock.clone()).jitter(0.0);
        let builder = match scenario.has_store {
            true => {
                world.memory.save(&stored(seed, world.clock.wall())).await.unwrap();
                builder.store(world.clone())
            }
            false => builder.tokens(tokens_of(seed)),
        };
        let builder = match scenario.has_hook {
            true => {
                let person = world.clone();
                builder.on_login_required(move |why| {
                    let person = person.clone();
                    async move { person.log_in(why).await }
                })
            }
            false => builder,
        };
        let session = builder.build().unwrap();
        let client = ClientBuilder::new(UNUSED.clone()).with(session.clone()).with(world.clone());
        let client = client.build();
        let cast = scenario.actors.iter().copied().map(Acting::new).collect();
        let play = Self { scenario, choices, world, session, client, cast, words: Vec::new() };
        play.prologue(seed).await;
        play
    }

    async fn prologue(&self, seed: usize) {
        if self.scenario.start != Start::FirstUse {
            self.session.tokens().await.unwrap();
        }
        match self.scenario.start {
            Start::FirstUse => {}
            Start::Dead => {
                self.world.ledger().pairs[seed].is_dead = true;
                self.world.clock.advance(LIFE);
            }
            Start::Over => self.world.clock.advance(LIFE),
            Start::Rejected => self.world.ledger().pairs[seed].is_rejected = true,
            Start::Stale => self.world.clock.advance(LIFE - 30 * SECOND),
        }
        self.world.close_doors();
    }

    /// Takes steps until there are none.
    async fn go_on(&mut self) -> usize {
        for steps in 0..MOST_STEPS {
            let enabled = self.enabled().await;
            if enabled.is_empty() || !self.world.ledger().broken_promises.is_empty() {
                return steps;
            }
            let step = enabled[self.choices.choose(enabled.len())];
            self.world.clock.advance(SECOND / 1000);
            self.take(step).await;
            self.rest(self.scenario.every_order).await;
            let current = self.session.current_tokens();
            self.world.ledger().check_memory(current.as_ref());
            if let Step::Begin(index) = step
                && self.cast[index].actor == Actor::Set
            {
                self.check_nobody_waits();
            }
        }
        self.world.ledger().breaks("K-24: there is no end");
        MOST_STEPS
    }

    /// K-25: whoever waits for tokens goes on with those of a login at once.
    fn check_nobody_waits(&self) {
        let waiting = self.world.waiting();
        for (index, acting) in self.cast.iter().enumerate() {
            let is_sent =
                |it: &Operation| matches!(it, Operation::Send { actor, .. } if *actor == index);
            let has_work = acting.actor.is_request() && acting.is_at_work();
            if has_work && !waiting.iter().any(is_sent) {
                let line = format!("K-25: {} waits although there are tokens", name_of(index));
                self.world.ledger().breaks(line);
            }
        }
    }

    /// What may happen now.
    async fn enabled(&self) -> Vec<Step> {
        let waiting = self.world.waiting();
        let is_allowed = |deviation| {
            let ledger = self.world.ledger();
            ledger.deviations.len() < self.scenario.most_deviations
                && self.scenario.deviations.contains(&deviation)
        };
        let mut steps = Vec::new();
        for (place, operation) in waiting.iter().enumerate() {
            steps.push(Step::Answer(place, *operation, Answer::Well));
            steps.extend(self.scenario.deviations.iter().filter_map(|deviation| match deviation {
                Deviation::At(door, answer) if *door == operation.door() => {
                    is_allowed(*deviation).then_some(Step::Answer(place, *operation, *answer))
                }
                _ => None,
            }));
        }
        for (index, acting) in self.cast.iter().enumerate() {
            let is_alike = |other: &Acting| other.actor == acting.actor && !other.has_begun;
            if !acting.has_begun && !self.cast[..index].iter().any(is_alike) {
                let is_possible =
                    acting.actor != Actor::Sibling || self.sibling_can_refresh().await;
                steps.extend(is_possible.then_some(Step::Begin(index)));
            }
            if acting.is_at_work() && is_allowed(Deviation::Cancel) {
                steps.push(Step::Cancel(index));
            }
        }
        if is_allowed(Deviation::LeaseEnds) && self.world.is_locked().await {
            steps.push(Step::LeaseEnds);
        }
        let is_deviation = !waiting.is_empty();
        let may_pass = !is_deviation || is_allowed(Deviation::TimePasses);
        if may_pass && !self.world.clock.sleepers().is_empty() {
            steps.push(Step::TimePasses(is_deviation));
        }
        steps
    }

    async fn sibling_can_refresh(&self) -> bool {
        let stored = self.world.memory.load().await.unwrap();
        let is_good = stored.is_some_and(|tokens| {
            let pair = &self.world.ledger().pairs[number_of(&tokens)];
            !pair.is_dead && !pair.is_replaced && !pair.is_revoked
        });
        is_good && !self.world.is_locked().await
    }

    pub async fn take(&mut self, step: Step) {
        let line = self.line_of(step);
        {
            let mut ledger = self.world.ledger();
            ledger.step += 1;
            let line = format!("{:4}. {line}", ledger.step);
            ledger.trace.push(line);
            let step_number = ledger.step;
            ledger.deviations.extend(deviation_in(step).map(|it| (step_number, it)));
        }
        match step {
            Step::Answer(place, _, answer) => self.world.answer(place, answer),
            Step::Begin(index) => self.begin(index).await,
            Step::Cancel(index) => self.cast[index].go_away(),
            Step::LeaseEnds => self.world.end_lease(),
            Step::TimePasses(_) => self.world.clock.advance(self.world.clock.sleepers()[0]),
        }
    }

    fn line_of(&self, step: Step) -> String {
        match step {
            Step::Answer(_, operation, answer) => format!("{operation}: {answer:?}"),
            Step::Begin(index) => {
                format!("{} begins: {:?}", name_of(index), self.cast[index].actor)
            }
            Step::Cancel(index) => format!("{} goes away", name_of(index)),
            Step::LeaseEnds => "the lease ends by itself".into(),
            Step::TimePasses(_) => format!("{:?} pass", self.world.clock.sleepers()[0]),
        }
    }

    async fn begin(&mut self, index: usize) {
        let actor = self.cast[index].actor;
        self.cast[index].has_begun = true;
        if actor == Actor::Sibling {
            return self.sibling_refreshes(index).await;
        }
        let mut said = None;
        if actor.is_word() {
            let mut ledger = self.world.ledger();
            ledger.words += 1;
            let step = ledger.step;
            self.words.push(Word { actor: index, number: ledger.words, step });
            match actor {
                Actor::Set => said = Some(ledger.root(self.world.clock.wall())),
                _ => ledger.logged_out.push(step),
            }
        }
        let work = work_of(actor, index, said, &self.session, &self.client);
        self.cast[index].begin(work);
    }

    async fn sibling_refreshes(&mut self, index: usize) {
        let before = self.world.memory.load().await.unwrap().expect("something to refresh");
        let number = {
            let mut ledger = self.world.ledger();
            let number = ledger.successor(number_of(&before), self.world.clock.wall());
            ledger.received(number);
            ledger.pairs[number].is_written = true;
            ledger.note(format!("the sibling saves r{number}"));
            number
        };
        let tokens = stored(number, self.world.clock.wall());
        self.world.memory.save(&tokens).await.unwrap();
        self.cast[index].outcome = Some("ok".into());
    }

    /// Lets everybody go on until they all wait.
    pub async fn rest(&mut self, in_every_order: bool) {
        // Runs the session's tasks until none is ready.
        tokio::task::yield_now().await;
        let mut session_rests = true;
        for _ in 0..MOST_STEPS {
            let woken: Vec<_> = (0..self.cast.len()).filter(|i| self.cast[*i].is_woken()).collect();
            let next = match in_every_order {
                _ if woken.is_empty() => 0,
                // Those who are woken, or the session's tasks that they have woken.
                true => self.choices.choose(woken.len() + usize::from(!session_rests)),
                false => 0,
            };
            match woken.get(next) {
                Some(index) => {
                    if self.cast[*index].go_on() {
                        self.has_ended(*index);
                    }
                    session_rests = false;
                }
                None if session_rests => return,
                None => {
                    tokio::task::yield_now().await;
                    session_rests = true;
                }
            }
        }
        self.world.ledger().breaks("K-24: nobody ever waits");
    }

    /// K-20, K-21, K-24: who ends well, or why not.
    fn has_ended(&self, index: usize) {
        let (actor, outcome) = (self.cast[index].actor, self.cast[index].outcome.clone().unwrap());
        let is_unsettled = actor == Actor::Settle && outcome == "ok" && self.world.is_at_work();
        let mut ledger = self.world.ledger();
        ledger.note(format!("{} ends: {outcome}", name_of(index)));
        if is_unsettled {
            ledger.breaks("K-21: settled, and something is on its way");
        }
        let is_login = |word: &&Word| self.cast[word.actor].actor == Actor::Set;
        let last_login = self.words.iter().filter(is_login).map(|word| word.step).max();
        let is_excused = match actor.is_request() {
            true if outcome == "401" => ledger.has_gone(Deviation::At(Door::Api, Answer::Rejects)),
            true => ledger.is_excused(Some(index), last_login.unwrap_or_default()),
            false => ledger.is_excused(None, 0),
        };
        if !["200", "ok"].contains(&outcome.as_str()) && !is_excused {
            ledger.breaks(format!("K-21, K-24, K-25: {} ends, for no reason", name_of(index)));
        }
    }
}

fn deviation_in(step: Step) -> Option<Deviation> {
    match step {
        Step::Answer(_, _, Answer::Well) | Step::Begin(_) | Step::TimePasses(false) => None,
        Step::Answer(_, operation, answer) => Some(Deviation::At(operation.door(), answer)),
        Step::Cancel(_) => Some(Deviation::Cancel),
        Step::LeaseEnds => Some(Deviation::LeaseEnds),
        Step::TimePasses(true) => Some(Deviation::TimePasses),
    }
}
