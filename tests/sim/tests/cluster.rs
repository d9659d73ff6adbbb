//! Random clusters. `SIM_SEED=7` runs one seed and prints its trace; `SIM_SEEDS=20000` runs more.

#![expect(clippy::disallowed_methods, reason = "a test is told by its caller which seeds to run")]

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use service_twin_sim::cluster::{Fence, run};

/// Seeds that broke something once.
const LISTED: [u64; 1] = [2101];
/// How many seeds a plain run takes.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

/// Runs seeds on two threads; answers those that failed, with why.
fn failures(seeds: std::ops::Range<u64>, fence: Fence) -> Vec<(u64, String)> {
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Err(why) = run(seed, fence) {
                        failed.lock().unwrap().push((seed, why.lines().next().unwrap_or_default().to_owned()));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed
}

#[test]
fn two_thousand_clusters_keep_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        match run(seed, Fence::Up) {
            Ok(trace) => println!("{trace}"),
            Err(why) => panic!("SIM_SEED={seed}: {why}"),
        }
        return;
    }
    let from = number("SIM_FROM").unwrap_or(0);
    let failed = failures(from..from + number("SIM_SEEDS").unwrap_or(SEEDS), Fence::Up);
    let shown: Vec<_> = failed.iter().take(20).map(|(seed, why)| format!("SIM_SEED={seed}: {why}")).collect();
    assert!(failed.is_empty(), "{} clusters broke a promise\n{}", failed.len(), shown.join("\n"));
}

#[test]
fn the_listed_clusters_keep_every_promise() {
    for seed in LISTED {
        run(seed, Fence::Up).unwrap_or_else(|why| panic!("SIM_SEED={seed}: {why}"));
    }
}

#[test]
fn without_the_check_of_the_epoch_stale_owners_are_noticed() {
    let failed = failures(0..200, Fence::Down);
    let stale = failed.iter().filter(|(_, why)| why.contains("stale epoch")).count();
    assert!(stale > 0, "no stale write in 200 clusters without a fence; failed otherwise: {failed:?}");
}

#[test]
fn a_cluster_run_twice_gives_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(run(seed, Fence::Up), run(seed, Fence::Up), "SIM_SEED={seed}");
    }
}
