//! What is done to a fleet, and how it is mended.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{rngs::StdRng, seq::SliceRandom as _};
use reqwest::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::{
    network::Cut,
    processes::{Fleet, SMALL_DISK, end, kill, signal},
    round::Round,
};
use crate::servers::until;

/// How far a clock steps, in seconds; then it steps back, to as far before the time as it was after it.
const CLOCK_STEP_S: i64 = 600;
/// A node has seen its clock step after so long.
const CLOCK_LOOK: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillNode,
    /// For longer than its lease.
    StopNode,
    DrainNode,
    KillServer,
    /// The one that leads a stream.
    KillLeader,
    KillBoth,
    /// Every server in turn, in good order.
    RestartServers,
    /// Every node in turn, in good order.
    RestartNodes,
    CutNodeFromServers,
    CutNodeFromNodes,
    CutServerFromServers,
    CutMachine,
    MuteMachine,
    DeafMachine,
    LossyMachine,
    SlowMachine,
    UnplugMachine,
    StepClock,
    FillDisk,
}

pub(crate) const FAULTS: [Fault; 19] = [
    Fault::KillNode,
    Fault::StopNode,
    Fault::DrainNode,
    Fault::KillServer,
    Fault::KillLeader,
    Fault::KillBoth,
    Fault::RestartServers,
    Fault::RestartNodes,
    Fault::CutNodeFromServers,
    Fault::CutNodeFromNodes,
    Fault::CutServerFromServers,
    Fault::CutMachine,
    Fault::MuteMachine,
    Fault::DeafMachine,
    Fault::LossyMachine,
    Fault::SlowMachine,
    Fault::UnplugMachine,
    Fault::StepClock,
    Fault::FillDisk,
];

/// Through which nodes all twins answer while the fault lasts.
enum Meanwhile {
    Through(Vec<usize>),
    /// Nothing is said of that; the fault lasts this long.
    For(Duration),
}

/// Every kind once in some order, then again in another.
pub(crate) fn deck(kinds: &[Fault], count: usize, rng: &mut StdRng) -> Vec<Fault> {
    assert!(!kinds.is_empty(), "FLEET_ONLY names no fault");
    let mut deck = Vec::new();
    while deck.len() < count {
        let mut kinds = kinds.to_vec();
        kinds.shuffle(rng);
        deck.extend(kinds);
    }
    deck.truncate(count);
    deck
}

/// How long twins did not answer, and how long the fleet took to be whole once it was mended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) away: Option<Duration>,
    pub(crate) mending: Duration,
}

/// What strikes, and sees what comes of it.
pub(crate) struct Hand<'a> {
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) runtime: &'a Runtime,
    pub(crate) client: Client,
}

impl Hand<'_> {
    /// Does it to one machine and waits until all twins answer through nodes that live; answers what machine was struck,
    /// and how long they did not.
    pub(crate) fn strike(&mut self, fault: Fault, at: usize, round: &Round) -> (usize, Option<Duration>) {
        let struck = Instant::now();
        let (at, meanwhile) = self.harm(fault, at, round);
        // What ends in good order, and what is waited for until it is so, is no time without an answer.
        let is_told = matches!(
            fault,
            Fault::DrainNode | Fault::RestartServers | Fault::RestartNodes | Fault::StepClock | Fault::FillDisk
        );
        let began = if is_told { Instant::now() } else { struck };
        match meanwhile {
            Meanwhile::Through(by) => {
                until("that all twins answer", || self.runtime.block_on(round.answers(&by)));
                (at, Some(began.elapsed()))
            }
            Meanwhile::For(time) => {
                std::thread::park_timeout(time);
                (at, None)
            }
        }
    }

    pub(crate) fn until_whole(&self, round: &Round) {
        until("that the fleet is whole again", || {
            let servers = (0..3).all(|at| self.is_healthy(at));
            servers && self.runtime.block_on(round.answers(&[0, 1, 2]))
        });
    }

    fn is_healthy(&self, at: usize) -> bool {
        let asked = self.client.get(self.fleet.monitor(at, "/healthz")).timeout(Duration::from_secs(2));
        self.runtime.block_on(async { asked.send().await.is_ok_and(|answer| answer.status().is_success()) })
    }

    fn leader(&self) -> usize {
        let mut leader = None;
        until("a leader", || {
            let asked = self.client.get(self.fleet.monitor(0, "/jsz?streams=true"));
            let jsz = self.runtime.block_on(async { asked.send().await.ok()?.json().await.ok() });
            leader = jsz.as_ref().and_then(Fleet::leader);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// A node's time of day as it says in its answers, in seconds from now.
    fn clock_of(&self, at: usize) -> Option<i64> {
        let asked = self.client.get(format!("{}/livez", self.fleet.http[at]));
        let answer = self.runtime.block_on(async { asked.send().await.ok() })?;
        let date = answer.headers().get("date")?.to_str().ok()?;
        let zoned = jiff::fmt::rfc2822::parse(date).ok()?;
        Some(zoned.timestamp().as_second() - jiff::Timestamp::now().as_second())
    }

    /// Waits for a clock that steps forward; in answers it never goes back.
    fn until_clock(&self, at: usize, seconds: i64) {
        self.fleet.step_clock(at, seconds);
        until("a clock", || self.clock_of(at).is_some_and(|off| (off - seconds).abs() < 60));
    }

    /// Answers what was struck in truth, and what is expected meanwhile.
    fn harm(&mut self, fault: Fault, at: usize, round: &Round) -> (usize, Meanwhile) {
        let others = Meanwhile::Through((0..3).filter(|other| *other != at).collect());
        let all = || Meanwhile::Through(vec![0, 1, 2]);
        let network = &self.fleet.network;
        match fault {
            Fault::KillNode => kill(&mut self.fleet.nodes[at]),
            Fault::StopNode => signal(self.fleet.nodes[at].as_ref(), Signal::STOP),
            Fault::DrainNode => end(&mut self.fleet.nodes[at]),
            Fault::KillServer => {
                kill(&mut self.fleet.servers[at]);
                return (at, all());
            }
            Fault::KillLeader => {
                let leader = self.leader();
                kill(&mut self.fleet.servers[leader]);
                return (leader, all());
            }
            Fault::KillBoth => {
                kill(&mut self.fleet.servers[at]);
                kill(&mut self.fleet.nodes[at]);
            }
            Fault::RestartServers => {
                for at in 0..3 {
                    end(&mut self.fleet.servers[at]);
                    self.fleet.start_server(at);
                    self.until_whole(round);
                }
                return (at, all());
            }
            Fault::RestartNodes => {
                for at in 0..3 {
                    end(&mut self.fleet.nodes[at]);
                    self.fleet.start_node(at);
                    self.until_whole(round);
                }
                return (at, all());
            }
            Fault::CutNodeFromServers => network.cut(at, Cut::NodeFromServers),
            Fault::CutNodeFromNodes => {
                network.cut(at, Cut::NodeFromNodes);
                return (at, Meanwhile::For(Duration::from_secs(3)));
            }
            Fault::CutServerFromServers => {
                network.cut(at, Cut::ServerFromServers);
                until("that a server is alone", || !self.is_healthy(at));
                return (at, all());
            }
            Fault::CutMachine => network.cut(at, Cut::Off),
            Fault::MuteMachine => network.cut(at, Cut::Mute),
            Fault::DeafMachine => network.cut(at, Cut::Deaf),
            Fault::LossyMachine => {
                network.cut(at, Cut::Lossy);
                return (at, Meanwhile::For(Duration::from_secs(5)));
            }
            Fault::SlowMachine => {
                network.slow(at, true);
                return (at, Meanwhile::For(Duration::from_secs(5)));
            }
            Fault::UnplugMachine => network.plug(at, false),
            Fault::StepClock => {
                self.until_clock(at, CLOCK_STEP_S);
                return (at, all());
            }
            Fault::FillDisk => {
                self.fleet.fill_disk();
                until("that a server is full", || !self.is_healthy(SMALL_DISK));
                return (SMALL_DISK, all());
            }
        }
        (at, others)
    }

    pub(crate) fn mend(&mut self, fault: Fault, at: usize) {
        let network = &self.fleet.network;
        match fault {
            Fault::KillNode | Fault::DrainNode => self.fleet.start_node(at),
            Fault::StopNode => signal(self.fleet.nodes[at].as_ref(), Signal::CONT),
            Fault::KillServer | Fault::KillLeader => self.fleet.start_server(at),
            Fault::KillBoth => {
                self.fleet.start_server(at);
                self.fleet.start_node(at);
            }
            Fault::RestartServers | Fault::RestartNodes => {}
            Fault::CutNodeFromServers
            | Fault::CutNodeFromNodes
            | Fault::CutServerFromServers
            | Fault::CutMachine
            | Fault::MuteMachine
            | Fault::DeafMachine
            | Fault::LossyMachine => network.heal(at),
            Fault::SlowMachine => network.slow(at, false),
            Fault::UnplugMachine => network.plug(at, true),
            Fault::StepClock => {
                for seconds in [-CLOCK_STEP_S, 0] {
                    self.fleet.step_clock(at, seconds);
                    std::thread::park_timeout(CLOCK_LOOK);
                }
            }
            Fault::FillDisk => {
                self.fleet.free_disk();
                end(&mut self.fleet.servers[at]);
                self.fleet.start_server(at);
            }
        }
    }
}

/// The median and the longest of each kind.
#[derive(Default)]
pub(crate) struct Times(BTreeMap<Fault, Vec<Took>>);

impl Times {
    pub(crate) fn add(&mut self, fault: Fault, took: Took) {
        self.0.entry(fault).or_default().push(took);
    }

    /// How long twins did not answer at most.
    pub(crate) fn longest(&self, fault: Fault) -> Duration {
        self.0[&fault].iter().filter_map(|took| took.away).max().unwrap_or_default()
    }

    pub(crate) fn print(&self) {
        eprintln!("{:<22}{:>6}{:>18}{:>18}", "fault", "times", "away, s", "whole again, s");
        eprintln!("{:<22}{:>6}{:>9}{:>9}{:>9}{:>9}", "", "", "median", "longest", "median", "longest");
        for (fault, took) in &self.0 {
            let of = |times: Vec<Duration>| {
                let mut times = times;
                times.sort();
                let show =
                    |time: Option<&Duration>| time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
                (show(times.get(times.len() / 2)), show(times.last()))
            };
            let (median, longest) = of(took.iter().filter_map(|took| took.away).collect());
            let (mending, slowest) = of(took.iter().map(|took| took.mending).collect());
            let name = format!("{fault:?}");
            eprintln!("{name:<22}{:>6}{median:>9}{longest:>9}{mending:>9}{slowest:>9}", took.len());
        }
    }
}
