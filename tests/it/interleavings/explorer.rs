//! Executes a scenario once for every sequence of choices.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Arc;

use crate::interleavings::choices::Choices;
use crate::interleavings::play::{Ending, play};
use crate::interleavings::scenario::Scenario;

/// A tree this large is not meant: make the scenario smaller.
const MOST: usize = 5_000_000;

/// Whether trees are explored that take minutes: `INTERLEAVINGS=deep`.
pub fn is_deep() -> bool {
    env::var("INTERLEAVINGS").is_ok_and(|it| it == "deep")
}

/// What was seen in all executions together.
#[derive(Default)]
pub struct Explored {
    pub executions: usize,
    steps: usize,
    deviations: BTreeSet<String>,
    /// How often the actors, in their order, came to this.
    outcomes: BTreeMap<String, usize>,
}

impl Scenario {
    /// Executes it in every way there is. Panics with the first that breaks a promise.
    pub fn explore(self) -> Explored {
        let scenario = Arc::new(self);
        if let Some(choices) = scenario.replayed() {
            scenario.replay(choices);
        }
        let mut choices = Choices::default();
        let mut explored = Explored::default();
        loop {
            let ending = play(&scenario, &mut choices);
            if !ending.broken_promises.is_empty() {
                panic!("{}", scenario.tell(&ending, &choices));
            }
            explored.add(&ending);
            assert!(explored.executions < MOST, "{}: the tree has no end", scenario.name);
            if !choices.advance() {
                break;
            }
        }
        explored.tell(&scenario);
        let deviations = scenario.deviations.iter().filter(|_| scenario.most_deviations > 0);
        for deviation in deviations {
            let line = format!("{deviation:?}");
            let is_seen = explored.deviations.contains(&line);
            assert!(is_seen, "{}: {line} never came about", scenario.name);
        }
        explored
    }

    /// The choices in `INTERLEAVING`, if they are about this scenario: `name: 0.3.1`.
    fn replayed(&self) -> Option<Choices> {
        let asked = env::var("INTERLEAVING").ok()?;
        let (name, path) = asked.rsplit_once(": ")?;
        (name == self.name).then(|| Choices::replaying(path))
    }

    fn replay(self: &Arc<Self>, mut choices: Choices) {
        let ending = play(self, &mut choices);
        println!("{}", self.tell(&ending, &choices));
    }

    /// An execution, step by step.
    fn tell(&self, ending: &Ending, choices: &Choices) -> String {
        let (trace, broken) = (ending.trace.join("\n"), ending.broken_promises.join("\n  "));
        let (name, path) = (self.name, choices.path());
        format!(
            "{name}\n{trace}\nbroken promises:\n  {broken}\nagain: \
             INTERLEAVING='{name}: {path}' cargo test --test it -- interleavings --nocapture"
        )
    }
}

impl Explored {
    fn add(&mut self, ending: &Ending) {
        self.executions += 1;
        self.steps += ending.steps;
        self.deviations.extend(ending.deviations.iter().map(|it| format!("{it:?}")));
        *self.outcomes.entry(ending.outcomes.join(", ")).or_default() += 1;
    }

    fn tell(&self, scenario: &Scenario) {
        let Self { executions, steps, .. } = self;
        println!("{}: {executions} executions, {steps} steps, complete", scenario.name);
        for (outcomes, count) in &self.outcomes {
            println!("    {count:7}  {outcomes}");
        }
    }
}
