//! The real runtime over the real store, killed with `kill -9` in the middle of its work, again and again.
//!
//! A child process (this very binary) works and says over a pipe what it sends and what it is told; the parent kills it,
//! opens what it left through the public door, and compares. `TORTURE_KILLS=500`, `TORTURE_CASES=1000` and
//! `TORTURE_NODE_KILLS=200` run longer.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]
#![expect(clippy::disallowed_methods, reason = "parent and child agree over the environment")]
#![expect(clippy::print_stdout, reason = "the child speaks over its standard output")]

mod account;
#[cfg(feature = "dapr")]
mod capabilities;
mod child;
mod parent;

use parent::Parent;

/// Kills in a plain run.
const KILLS: u64 = 50;
/// Kills between commit and delivery in a plain run.
const CASES: u64 = 100;
/// Kills of a node in a plain run.
#[cfg(feature = "dapr")]
const NODE_KILLS: u64 = 20;
/// Every so many kills, and after the last, all that was told since the first is compared with what is there.
const WHOLE_EVERY: u64 = 10;
/// Every so many lives run at `Fsync`, the others at `Flushed`: a kill spares what the kernel has, but the ways differ.
const FSYNC_EVERY: u64 = 5;

fn number(name: &str, plain: u64) -> u64 {
    std::env::var(name).map_or(plain, |text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_over_kill_9() {
    let kills = number("TORTURE_KILLS", KILLS);
    let mut parent = Parent::new(number("TORTURE_SEED", 7));
    for kill in 0..kills {
        parent.life(kill);
        if kill % WHOLE_EVERY == WHOLE_EVERY - 1 || kill + 1 == kills {
            parent.compare();
        }
    }
    parent.enough(kills);
}

#[test]
fn an_effect_arrives_although_the_process_died_between_commit_and_delivery_and_nobody_calls() {
    let mut parent = Parent::new(1);
    for case in 0..number("TORTURE_CASES", CASES) {
        parent.die_between(case);
    }
}

#[cfg(feature = "dapr")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_transactions_and_topics_keep_what_was_acknowledged_over_kill_9_of_node_and_subscriber() {
    capabilities::torture(number("TORTURE_NODE_KILLS", NODE_KILLS), number("TORTURE_SEED", 7)).await;
}

#[test]
#[ignore = "is started, and killed, by the tests above"]
fn child() {
    child::run();
}
