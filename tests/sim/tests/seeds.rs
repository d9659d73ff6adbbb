//! Random worlds. `SIM_SEED=7` runs one seed and prints its trace; `SIM_SEEDS=20000` runs more.

#![expect(clippy::disallowed_methods, reason = "a test is told by its caller which seeds to run")]

use std::sync::{
    Mutex, Once,
    atomic::{AtomicU64, Ordering},
};

use service_twin_sim::{book::BOOM, world};

/// Seeds that broke something once.
const LISTED: &str = include_str!("../seeds.txt");
/// How many seeds a plain run takes.
const SEEDS: u64 = 1_000;

/// Panics on purpose are not shown.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str().is_none_or(|text| !text.contains(BOOM)) {
                shown(panic);
            }
        }));
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

/// Runs seeds on two threads; answers those that failed, with why.
fn failures(seeds: &[u64]) -> Vec<(u64, String)> {
    hush();
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) =
                    usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|at| seeds.get(at))
                {
                    if let Err(why) = world::run(*seed) {
                        failed.lock().unwrap().push((*seed, why));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

fn all_well(seeds: &[u64]) {
    let failed = failures(seeds);
    let shown: Vec<_> = failed.iter().take(20).map(|(seed, why)| format!("SIM_SEED={seed}: {why}")).collect();
    assert!(
        failed.is_empty(),
        "{} of {} seeds broke a promise; run one with SIM_SEED=… and add it to tests/sim/seeds.txt\n{}",
        failed.len(),
        seeds.len(),
        shown.join("\n")
    );
}

#[test]
fn a_thousand_worlds_keep_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        hush();
        match world::run(seed) {
            Ok(trace) => println!("{trace}"),
            Err(why) => panic!("SIM_SEED={seed}: {why}"),
        }
        return;
    }
    let from = number("SIM_FROM").unwrap_or(0);
    all_well(&(from..from + number("SIM_SEEDS").unwrap_or(SEEDS)).collect::<Vec<_>>());
}

#[test]
fn the_listed_worlds_keep_every_promise() {
    let lines = LISTED.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    all_well(&lines.filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    hush();
    for seed in 0..20 {
        let (one, other) = (world::run(seed), world::run(seed));
        assert_eq!(one, other, "SIM_SEED={seed}");
    }
}
