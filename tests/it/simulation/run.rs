use std::sync::Arc;
use std::time::Duration;

use crate::simulation::faults::{Counts, Fault};
use crate::simulation::machine::Machine;
use crate::simulation::oracle::{RequestId, SessionId};
use crate::simulation::output::take_leak;
use crate::simulation::plan::Act;
use crate::simulation::process::{Member, Process};
use crate::simulation::world::{Entry, World};

/// One seed's run: who is there, and whose turn it is.
pub struct Simulation {
    pub world: Arc<World>,
    pub machines: Vec<Arc<Machine>>,
    pub processes: Vec<Option<Process>>,
    away: Vec<Option<Away>>,
    sessions: SessionId,
    requests: RequestId,
    steps: usize,
}

/// A process that does not run, though it lives.
#[derive(Clone, Copy)]
struct Away {
    since: Duration,
    /// Whether the whole machine sleeps: its monotonic clock stands still then.
    is_asleep: bool,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
enum Turn {
    Entry,
    /// A process, and who of it.
    Process(usize, u64),
    /// Time goes on, though somebody could still do something.
    Time,
}

/// What one run came to.
pub struct Report {
    pub violation: Option<String>,
    pub transcript: Vec<String>,
    pub counts: Counts,
    pub steps: usize,
    pub requests: usize,
    pub trades: usize,
    pub virtual_time: Duration,
}

/// More than a run ever needs.
const MOST_STEPS: usize = 2_000_000;

impl Simulation {
    /// Runs one seed to its end.
    pub fn run(seed: u64) -> Report {
        fastrand::seed(seed);
        let mut simulation = Self::new(seed);
        simulation.goes_wrong();
        simulation.comes_right();
        simulation.report()
    }

    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let count = world.plan.processes;
        let mut simulation = Self {
            machines: (0..count).map(|_| Machine::new()).collect(),
            processes: (0..count).map(|_| None).collect(),
            away: vec![None; count],
            sessions: 0,
            requests: 0,
            steps: 0,
            world,
        };
        simulation.stores_begin();
        for process in 0..count {
            simulation.starts(process);
        }
        simulation
    }

    /// Mostly somebody has logged in before.
    fn stores_begin(&mut self) {
        let world = Arc::clone(&self.world);
        for (account, plan) in world.plan.accounts.iter().enumerate() {
            if plan.store.is_some() && world.chance(90) {
                let end = self.machines[0].now().wall + plan.lifetime;
                let tokens = world.log_in(account).with_expires_at(end);
                world.write(account, SessionId::MAX, Some(tokens));
            }
        }
    }

    /// The time of faults.
    fn goes_wrong(&mut self) {
        let world = Arc::clone(&self.world);
        let plan = &world.plan;
        let end = plan.length.as_millis() as u64;
        for _ in 0..plan.bursts {
            let act = Act::Burst(world.below(plan.processes), 1 + world.below(5));
            world.act_later(world.millis(0, end), act);
        }
        for _ in 0..plan.fates {
            world.act_later(world.millis(0, end), Act::Fates);
        }
        self.run_until(plan.length);
    }

    /// Lets everybody go on until it is that late.
    pub fn run_until(&mut self, end: Duration) {
        self.world.later(end.saturating_sub(self.world.now()), || {});
        while self.world.now() < end && self.goes_on() {
            self.step();
        }
    }

    /// Whether nothing has been violated so far.
    pub fn goes_on(&mut self) -> bool {
        if self.steps > MOST_STEPS {
            self.world.oracle().violated("K-24", "somebody goes round in circles");
        }
        if let Some(leak) = take_leak() {
            self.world.oracle().violated("K-63", format!("a token is logged: {leak}"));
        }
        self.world.oracle().violation().is_none()
    }

    fn step(&mut self) {
        self.steps += 1;
        let turns = self.turns();
        if turns.is_empty() {
            return self.time_passes(None);
        }
        let turn = match self.world.below(100) {
            0 => Turn::Time,
            _ => self.world.choose(&turns),
        };
        match turn {
            Turn::Entry => self.entry(),
            Turn::Process(process, number) => {
                if let Some(process) = &mut self.processes[process] {
                    process.may_work();
                    process.step(number);
                }
            }
            Turn::Time => self.time_passes(Some(self.world.millis(0, 30))),
        }
    }

    fn turns(&self) -> Vec<Turn> {
        let is_due = self.world.next_entry().is_some_and(|due| due <= self.world.now());
        let mut turns = Vec::new();
        if is_due {
            turns.push(Turn::Entry);
        }
        for (number, process) in self.awake() {
            turns.extend(process.ready().into_iter().map(|caller| Turn::Process(number, caller)));
        }
        turns
    }

    fn awake(&self) -> impl Iterator<Item = (usize, &Process)> {
        let processes = self.processes.iter().enumerate();
        processes
            .filter(|(number, _)| self.away[*number].is_none())
            .filter_map(|(number, process)| Some((number, process.as_ref()?)))
    }

    /// Time goes on until something is due, or for so long if nothing is.
    fn time_passes(&mut self, most: Option<Duration>) {
        let now = self.world.now();
        let entry = self.world.next_entry().map(|due| due.saturating_sub(now));
        let sleepers = self
            .awake()
            .filter_map(|(number, _)| self.machines[number].clock.sleepers().first().copied());
        let next = sleepers.chain(entry).min().unwrap_or(Duration::from_secs(1));
        let duration = most.map_or(next, |most| most.min(next));
        self.world.pass(duration);
        for (number, machine) in self.machines.iter().enumerate() {
            if self.away[number].is_none() {
                machine.advance(duration);
            }
        }
        self.everybody_may_work();
    }

    fn everybody_may_work(&mut self) {
        self.processes.iter_mut().flatten().for_each(Process::may_work);
    }

    fn entry(&mut self) {
        match self.world.take_entry() {
            Some(Entry::Deliver(deliver)) => deliver(),
            Some(Entry::Act(act)) => self.act(act),
            None => {}
        }
        self.everybody_may_work();
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Burst(process, count) => {
                for _ in 0..count {
                    self.request(process);
                }
            }
            Act::Fate(process, fault) => self.befalls(process, fault),
            Act::Fates => {
                let process = self.world.below(self.processes.len());
                if let Some(fault) = self.world.fate() {
                    self.befalls(process, fault);
                }
            }
            Act::ApiRecovers => self.world.server().is_storm = false,
            Act::ProcessResumes(process) => self.resumes(process),
            Act::ProcessStarts(process) => self.starts(process),
            Act::ServerStarts => self.world.server().is_down = false,
            Act::StoreRecovers(account) => self.world.shelf(account).is_down = false,
        }
    }

    /// One request by one of the sessions of a process.
    fn request(&mut self, process: usize) {
        let Some(member) = self.somebody(process) else { return };
        let polls = self.world.strikes(Fault::Cancelled).then(|| 1 + self.world.below(12));
        self.request_by(process, &member, polls);
    }

    pub fn request_by(
        &mut self,
        process: usize,
        member: &Member,
        polls: Option<usize>,
    ) -> RequestId {
        self.requests += 1;
        let id = self.requests;
        let world = Arc::clone(&self.world);
        let call = world.requests(id, member.id, member.client.clone());
        self.call(process, call, polls);
        id
    }

    pub fn call(
        &mut self,
        process: usize,
        call: impl Future<Output = ()> + Send + 'static,
        polls: Option<usize>,
    ) {
        if let Some(process) = &mut self.processes[process] {
            process.spawn(call, polls);
        }
    }

    fn somebody(&self, process: usize) -> Option<Member> {
        let members = &self.processes[process].as_ref()?.sessions;
        Some(members[self.world.below(members.len())].clone())
    }

    fn befalls(&mut self, process: usize, fault: Fault) {
        let world = Arc::clone(&self.world);
        if world.is_calm() {
            return;
        }
        world.note(format_args!("p{process}: {fault:?}"));
        match fault {
            Fault::ClockBack => self.machines[process].set_back(world.millis(100, 7_200_000)),
            Fault::ClockForward => self.machines[process].set_forward(world.millis(100, 7_200_000)),
            Fault::Crash => {
                if let Some(dead) = self.processes[process].take() {
                    dead.die();
                    world.act_later(world.millis(10, 40_000), Act::ProcessStarts(process));
                }
            }
            Fault::Paused | Fault::Suspended => {
                let is_asleep = fault == Fault::Suspended;
                if self.away[process].is_none() {
                    self.away[process] = Some(Away { since: world.now(), is_asleep });
                    world.act_later(world.millis(10, 100_000), Act::ProcessResumes(process));
                }
            }
            Fault::RejectionStorm => {
                world.server().is_storm = true;
                world.act_later(world.millis(100, 40_000), Act::ApiRecovers);
            }
            Fault::Revoked => {
                let ends_access = world.chance(50);
                world.server().revoke_everything(ends_access);
            }
            Fault::ServerRestart => {
                {
                    let mut server = world.server();
                    server.is_down = true;
                    server.starts += 1;
                }
                world.act_later(world.millis(100, 60_000), Act::ServerStarts);
            }
            Fault::StoreOutage => {
                let account = world.below(world.plan.accounts.len());
                world.shelf(account).is_down = true;
                world.act_later(world.millis(100, 90_000), Act::StoreRecovers(account));
            }
            _ => self.user_acts(process, fault),
        }
    }

    fn user_acts(&mut self, process: usize, fault: Fault) {
        let Some(member) = self.somebody(process) else { return };
        let world = Arc::clone(&self.world);
        let polls = world.strikes(Fault::Cancelled).then(|| 1 + world.below(12));
        let (id, session) = (member.id, member.session);
        match fault {
            Fault::Cleared => self.call(process, world.logs_out(id, session, false), polls),
            Fault::Forced => self.call(process, world.demands_refresh(id, session), polls),
            Fault::LoggedOut => self.call(process, world.logs_out(id, session, true), polls),
            Fault::Settled => self.call(process, world.settles(id, session), polls),
            _ => {
                let login = async move { world.sets_tokens(id, &session).await };
                self.call(process, login, polls);
            }
        }
    }

    /// Runs again after a pause.
    pub fn resumes(&mut self, process: usize) {
        let Some(away) = self.away[process].take() else { return };
        let missed = self.world.now() - away.since;
        match away.is_asleep {
            true => self.machines[process].slept(missed),
            false => self.machines[process].advance(missed),
        }
    }

    pub fn starts(&mut self, process: usize) {
        if self.processes[process].is_none() {
            let machine = &self.machines[process];
            let started = Process::start(&self.world, process, machine, &mut self.sessions);
            self.processes[process] = Some(started);
        }
    }

    fn report(mut self) -> Report {
        self.processes.clear();
        self.world.end();
        let world = &self.world;
        Report {
            violation: world.oracle().violation().map(str::to_owned),
            transcript: world.take_transcript(),
            counts: world.counts(),
            steps: self.steps,
            requests: self.requests,
            trades: world.server().trades,
            virtual_time: world.now(),
        }
    }
}
