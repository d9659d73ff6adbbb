//! Other Rust actor runtimes in W1, W3 and W5, beside ours in the same run, under the same allocator.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [W1 …] [--cpus n] [--json] [--quick]`. Each peer
//! runs on a tokio runtime with as many workers as CPUs; its actors are found by id in a dashmap, as their users do.
//! None of them keeps anything: the rows `+memory` set our committed changes beside their plain ones.

use std::process::ExitCode;

use directory::{hot_asks, resident};
use peer::{Coerce, Kameo, Ractor};
use workloads::{
    Bars, Contestant, Entry, Host, Options, Peers, Pick, Plan, Row, Setting, Until, WINDOW, Work, ids,
    memory::{self, Subject},
    ours::{self, Asker, Counter, Counts, Kept, counters},
    passes, run,
};

mod directory;
mod peer;
mod rio;
#[path = "../../workloads/mod.rs"]
#[expect(dead_code, reason = "shared with the project's own bench, which runs more of it")]
mod workloads;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whoever a bar names.
const ACTORS: [&str; 3] = ["kameo", "ractor", "coerce"];

const ROWS: &[Entry] = &[
    Entry {
        name: "W1",
        question: "cold activations a second: 100,000 ids never seen, one increment each, window 256",
        cpus: &[1, 2],
        work: Work::Rates(|setting| cold::<Counter>(setting, "W1", "none", 8.0)),
    },
    Entry {
        name: "W1+memory",
        question: "the same; every change of ours encoded and committed to the memory store, theirs kept nowhere",
        cpus: &[1, 2],
        work: Work::Rates(|setting| cold::<Kept>(setting, "W1+memory", "memory", 5.0)),
    },
    Entry {
        name: "W3",
        question: "hot asks a second: 1,000 actors found by id, window 256",
        cpus: &[1, 2],
        work: Work::Rates(|setting| {
            let bar = if setting.cpus == 1 { 4.0 } else { 2.0 };
            let peers = Some(Peers { names: &["kameo", "ractor"], bar });
            hot::<Counter>(setting, "W3", "none", WINDOW, Bars { peers, ..Bars::default() })
        }),
    },
    Entry {
        name: "W3+memory",
        question: "the same; every change of ours encoded and committed to the memory store, theirs kept nowhere",
        cpus: &[1, 2],
        work: Work::Rates(|setting| hot::<Kept>(setting, "W3+memory", "memory", WINDOW, Bars::default())),
    },
    Entry {
        name: "W3-window-1",
        question: "W3 with one caller",
        cpus: &[2],
        work: Work::Rates(|setting| hot::<Counter>(setting, "W3-window-1", "none", 1, Bars::default())),
    },
    Entry {
        name: "W5",
        question: "resident bytes per idle actor",
        cpus: &[2],
        work: Work::Bytes {
            subjects: &[
                memory::OURS,
                Subject { role: "other", name: "kameo", bytes_each: resident::<Kameo> },
                Subject { role: "other", name: "ractor", bytes_each: resident::<Ractor> },
                Subject { role: "other", name: "coerce", bytes_each: resident::<Coerce> },
            ],
            most: [380.0, 460.0],
            peers: Some(Peers { names: &["kameo", "ractor"], bar: 0.15 }),
        },
    },
];

fn main() -> ExitCode {
    run(&Options::from_args(), ROWS)
}

fn cold<K: Counts>(setting: &Setting, workload: &'static str, durability: &'static str, bar: f64) -> Row {
    let (cpus, ids) = (setting.cpus, ids(100_000));
    let (host, of) = (Host::start(cpus), ids.clone());
    let once = Plan { window: WINDOW, until: Until::Count(100_000), timed: false };
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            let runtime = ours::start_in_memory(cpus);
            let lap = host.run(once, |_| Asker::<K>::new(&runtime, &of, Pick::InOrder));
            assert_eq!(lap.sum, lap.ops, "some reply was wrong");
            ours::stop(host.handle(), runtime);
            lap
        })
    });
    let contestants = vec![
        ours,
        directory::cold::<Kameo>(cpus, &ids, once),
        directory::cold::<Ractor>(cpus, &ids, once),
        directory::cold::<Coerce>(cpus, &ids, once),
        rio::cold(&ids, once),
    ];
    let bars = Bars { peers: Some(Peers { names: &ACTORS, bar }), ..Bars::default() };
    Row { workload, driver: "b", durability, bars, contestants }
}

fn hot<K: Counts>(setting: &Setting, workload: &'static str, durability: &'static str, window: u64, bars: Bars) -> Row {
    let (cpus, ids) = (setting.cpus, ids(1_000));
    let plan = move |time| Plan { window, until: Until::Elapsed(time), timed: window == 1 };
    let (host, of) = (Host::start(cpus), ids.clone());
    let (runtime, mut audit) = (ours::start_in_memory(cpus), workloads::Audit::default());
    let ours = Contestant::ours(move |time| {
        let lap = host.run(plan(time), |_| Asker::<K>::new(&runtime, &of, Pick::Hot));
        audit.check("ours", &lap, counters::<K>(host.handle(), &runtime, &of));
        lap
    });
    let contestants = vec![
        ours,
        hot_asks::<Kameo>(cpus, &ids, plan),
        hot_asks::<Ractor>(cpus, &ids, plan),
        hot_asks::<Coerce>(cpus, &ids, plan),
        rio::hot_asks(&ids, plan),
    ];
    Row { workload, driver: "b", durability, bars, contestants }
}
