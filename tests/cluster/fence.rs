//! What an owner that has lost its slot can write: nothing.

use std::collections::HashMap;

use service_twin::store::{Epoch, Error, Slot};

use crate::{
    servers::Servers,
    world::{Node, keys_of},
};

const COMMITS: usize = 64;
const ROUNDS: u64 = 12;

/// The sequence that a core of these tests carries.
fn sequence_of(core: Option<String>) -> u64 {
    core.map_or(0, |core| core.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_rival_that_claims_meanwhile_shuts_out_what_has_not_landed() {
    let servers = Servers::one();
    let (a, b) = (Node::open(servers.config("tw", "a")), Node::open(servers.config("tw", "b")));
    let slot = Slot(1234);
    let keys = keys_of(slot, COMMITS);
    let mut stored: HashMap<&String, u64> = keys.iter().map(|key| (key, 0)).collect();
    let (mut landed, mut shut_out) = (0, 0);
    for round in 0..ROUNDS {
        let ours = a.claim(slot);
        // Half of them before the rival claims or while it does, all of them again when it has.
        let submit = |from: usize, to: usize, stored: &HashMap<&String, u64>| {
            for (n, key) in keys.iter().enumerate().take(to).skip(from) {
                let next = stored[key] + 1;
                let mut commit = a.core(key, ours, next, &format!("{next} by a in {round}"));
                commit.token = u64::try_from(n).unwrap();
                a.hand_in(commit);
            }
        };
        let mut heard = |count: usize, owner: Epoch, stored: &mut HashMap<&String, u64>| {
            for _ in 0..count {
                let ended = a.next();
                match ended.result {
                    Ok(()) => {
                        *stored.get_mut(&keys[usize::try_from(ended.token).unwrap()]).unwrap() += 1;
                        landed += 1;
                    }
                    Err(error) => {
                        assert_eq!(error, Error::Fenced { ours, owner });
                        shut_out += 1;
                    }
                }
            }
        };
        submit(0, COMMITS / 2, &stored);
        let theirs = b.claim(slot);
        assert!(theirs > ours);
        heard(COMMITS / 2, theirs, &mut stored);
        let before = stored.clone();
        submit(0, COMMITS, &stored);
        heard(COMMITS, theirs, &mut stored);
        assert_eq!(stored, before, "round {round}: a commit under the old epoch was answered as stored");
        for key in &keys {
            let found = sequence_of(b.read(key, theirs));
            assert_eq!(found, stored[key], "round {round}: {key} holds what its owner did not write");
        }
    }
    assert!(shut_out >= COMMITS * usize::try_from(ROUNDS).unwrap(), "{landed} landed, {shut_out} were shut out");
}

#[test]
fn the_slots_that_were_not_lost_are_written_with_the_same_batch() {
    let servers = Servers::one();
    let mut config = servers.config("tw", "a");
    config.streams = 1;
    let a = Node::open(config.clone());
    config.node = "b".into();
    let b = Node::open(config);
    let slots = [Slot(1), Slot(2), Slot(3)];
    let epochs = slots.map(|slot| a.claim(slot));
    let keys = slots.map(|slot| keys_of(slot, 20));
    let owner = b.claim(slots[1]);
    for n in 0..20 {
        for (keys, epoch) in keys.iter().zip(epochs) {
            let mut commit = a.core(&keys[n], epoch, 1, "1 once");
            commit.token = epoch.0;
            a.hand_in(commit);
        }
    }
    for _ in 0..60 {
        let ended = a.next();
        let lost = Err(Error::Fenced { ours: epochs[1], owner });
        assert_eq!(ended.result, if ended.token == epochs[1].0 { lost } else { Ok(()) });
    }
    assert!(keys[1].iter().all(|key| b.read(key, owner).is_none()));
    assert!(keys[0].iter().all(|key| a.read(key, epochs[0]).is_some()));
    assert_eq!(a.load(&keys[1][0], Some(epochs[1])), Err(Error::Fenced { ours: epochs[1], owner }));
}
