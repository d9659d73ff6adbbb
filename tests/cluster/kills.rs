//! Servers that die in the middle.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use service_twin::store::{Epoch, Error, Slot};

use crate::{
    servers::Servers,
    world::{Node, keys_of},
};

/// Twins that commit one after the other, each as often as it can.
struct Load<'a> {
    node: &'a Node,
    keys: Vec<String>,
    epochs: HashMap<Slot, Epoch>,
    /// The sequence of each twin that was answered as stored.
    acked: Vec<u64>,
    total: u64,
}

impl<'a> Load<'a> {
    fn begin(node: &'a Node, slots: &[Slot], twins: usize) -> Self {
        let epochs = slots.iter().map(|slot| (*slot, node.claim(*slot))).collect();
        let keys: Vec<String> = slots.iter().flat_map(|slot| keys_of(*slot, twins)).collect();
        let acked = vec![0; keys.len()];
        Self { node, keys, epochs, acked, total: 0 }
    }

    fn slot(&self, twin: usize) -> Slot {
        use service_twin::store::Store;
        self.node.store.slot_of(&self.keys[twin])
    }

    fn hand_in(&self, twin: usize) {
        let next = self.acked[twin] + 1;
        let epoch = self.epochs[&self.slot(twin)];
        let mut commit = self.node.core(&self.keys[twin], epoch, next, &next.to_string());
        commit.token = u64::try_from(twin).unwrap();
        self.node.hand_in(commit);
    }

    /// Lets every twin commit until this many more are stored; a commit that fails ends its twin. Calls `at_half` in
    /// the middle. Answers which twins failed, and how.
    fn run(&mut self, commits: u64, mut at_half: impl FnMut()) -> HashMap<usize, Error> {
        let (until, half) = (self.total + commits, self.total + commits / 2);
        let mut failed = HashMap::new();
        let mut under_way = self.keys.len();
        (0..self.keys.len()).for_each(|twin| self.hand_in(twin));
        while under_way > 0 {
            let ended = self.node.next();
            let twin = usize::try_from(ended.token).unwrap();
            match ended.result {
                Ok(()) => {
                    self.acked[twin] += 1;
                    self.total += 1;
                    if self.total == half {
                        at_half();
                    }
                    if self.total < until {
                        self.hand_in(twin);
                        continue;
                    }
                }
                Err(error) => drop(failed.insert(twin, error)),
            }
            under_way -= 1;
        }
        failed
    }

    /// Claims every slot again and reads every twin: it has what was answered as stored, or one commit more whose
    /// outcome nobody knew.
    fn claim_again(&mut self, unknown: &HashSet<usize>) {
        for (slot, epoch) in &mut self.epochs {
            let next = self.node.claim(*slot);
            assert!(next > *epoch);
            *epoch = next;
        }
        for twin in 0..self.keys.len() {
            let read = self.node.read(&self.keys[twin], self.epochs[&self.slot(twin)]);
            let found: u64 = read.map_or(0, |core| core.parse().unwrap());
            let may = self.acked[twin]..=self.acked[twin] + u64::from(unknown.contains(&twin));
            assert!(may.contains(&found), "{}: {found} is stored, {may:?} was expected", self.keys[twin]);
            self.acked[twin] = found;
        }
    }
}

fn unknown(failed: &HashMap<usize, Error>) -> HashSet<usize> {
    let unknown = failed.iter().filter(|(_, error)| matches!(error, Error::Unknown(_)));
    unknown.map(|(twin, _)| *twin).collect()
}

#[test]
fn when_the_server_dies_the_outcome_is_unknown_and_a_claim_brings_out_the_truth() {
    let mut servers = Servers::one();
    let mut config = servers.config("tw", "a");
    (config.timeout, config.patience) = (Duration::from_secs(2), Duration::from_secs(20));
    let node = Node::open(config);
    let mut load = Load::begin(&node, &[Slot(5), Slot(3000)], 8);
    let failed = load.run(600, || servers.kill(0));
    let unknown = unknown(&failed);
    assert!(!unknown.is_empty(), "{failed:?}");
    assert_eq!(failed.len(), 16, "nobody was answered after the server had died");
    let blocked = node.commit(node.core(&load.keys[0], load.epochs[&load.slot(0)], 1, "never"));
    assert!(matches!(blocked, Err(Error::Unavailable(_))), "{blocked:?}: nothing is written before the next claim");
    servers.restart(0);
    servers.wait_until_healthy();
    load.claim_again(&unknown);
    assert_eq!(load.run(200, || {}), HashMap::new());
    load.claim_again(&HashSet::new());
}

#[test]
fn when_the_leader_of_a_stream_dies_nothing_that_was_answered_is_lost() {
    let mut servers = Servers::three();
    let mut config = servers.config("tw", "a");
    (config.streams, config.patience) = (1, Duration::from_secs(30));
    let node = Node::open(config);
    let mut load = Load::begin(&node, &[Slot(5), Slot(9), Slot(3000)], 16);
    for round in 0..2 {
        let leader = servers.leader("tw_TW00");
        let failed = load.run(4000, || servers.kill(leader));
        assert!(!failed.is_empty(), "round {round}: the kill was felt");
        load.claim_again(&unknown(&failed));
        assert_eq!(load.run(500, || {}), HashMap::new(), "round {round}: two of three go on");
        servers.restart(leader);
        servers.wait_until_healthy();
    }
    load.claim_again(&HashSet::new());
    assert!(load.total >= 4000);
}

/// How many commits a second three servers on this machine store; for `docs/cluster.md`.
#[test]
#[ignore = "a measurement"]
fn commits_a_second_on_three_servers() {
    let servers = Servers::three();
    for streams in [1, 4] {
        let mut config = servers.config(&format!("m{streams}"), "a");
        config.streams = streams;
        let node = Node::open(config);
        let slots: Vec<Slot> = (0..16).map(|n| Slot(n * 256)).collect();
        let mut load = Load::begin(&node, &slots, 64);
        load.run(2000, || {});
        let began = Instant::now();
        load.run(40_000, || {});
        let took = began.elapsed().as_secs_f64();
        println!("{streams} streams, 1,024 twins: {:.0} commits/s", 40_000.0 / took);
    }
}
