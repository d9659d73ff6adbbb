//! Other Rust actor runtimes in W1, W3 and W5, beside ours in the same run, under the same allocator.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [W1 …] [--cpus n] [--json] [--quick]`. Each peer
//! runs on a tokio runtime with as many workers as CPUs; its actors are found by id in a dashmap, as their users do.

use std::process::ExitCode;

use directory::{hot_asks, one_caller, resident};
use peer::{Coerce, Kameo, Ractor};
use workloads::{
    Bars, Contestant, Entry, Host, Options, Pick, Plan, Row, Setting, Until, WINDOW, Work, ids,
    memory::{self, Subject},
    ours::{self, Asker, Counter, counters},
    passes, run,
};

mod directory;
mod peer;
#[path = "../../workloads/mod.rs"]
#[expect(dead_code, reason = "shared with the project's own bench, which runs more of it")]
mod workloads;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: &[Entry] = &[
    Entry {
        name: "W1",
        question: "cold activations a second: 100,000 ids never seen, one increment each, window 256",
        cpus: &[1, 2],
        work: Work::Rates(cold),
    },
    Entry {
        name: "W3",
        question: "hot asks a second: 1,000 actors found by id, window 256",
        cpus: &[1, 2],
        work: Work::Rates(hot),
    },
    Entry { name: "W3-window-1", question: "the same with one caller", cpus: &[2], work: Work::Rates(alone) },
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
        },
    },
];

fn main() -> ExitCode {
    run(&Options::from_args(), ROWS)
}

fn cold(setting: &Setting) -> Row {
    let (cpus, ids) = (setting.cpus, ids(100_000));
    let (host, of) = (Host::start(cpus), ids.clone());
    let once = Plan { window: WINDOW, until: Until::Count(100_000), timed: false };
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            let runtime = ours::start_in_memory(cpus);
            let lap = host.run(once, |_| Asker::<Counter>::new(&runtime, &of, Pick::InOrder));
            ours::stop(host.handle(), runtime);
            lap
        })
    });
    let contestants = vec![
        ours,
        directory::cold::<Kameo>(cpus, &ids, once),
        directory::cold::<Ractor>(cpus, &ids, once),
        directory::cold::<Coerce>(cpus, &ids, once),
    ];
    Row { workload: "W1", driver: "b", durability: "none", bars: Bars::default(), contestants }
}

fn hot(setting: &Setting) -> Row {
    let ids = ids(1_000);
    let contestants = vec![
        hot_asks_of_ours(setting, WINDOW),
        hot_asks::<Kameo>(setting.cpus, &ids, WINDOW),
        hot_asks::<Ractor>(setting.cpus, &ids, WINDOW),
        hot_asks::<Coerce>(setting.cpus, &ids, WINDOW),
    ];
    Row { workload: "W3", driver: "b", durability: "none", bars: Bars::default(), contestants }
}

fn alone(setting: &Setting) -> Row {
    let ids = ids(1_000);
    let contestants = vec![
        hot_asks_of_ours(setting, 1),
        one_caller::<Kameo>(setting.cpus, &ids),
        one_caller::<Ractor>(setting.cpus, &ids),
        one_caller::<Coerce>(setting.cpus, &ids),
    ];
    Row { workload: "W3-window-1", driver: "b", durability: "none", bars: Bars::default(), contestants }
}

fn hot_asks_of_ours(setting: &Setting, window: u64) -> Contestant {
    let (host, ids) = (Host::start(setting.cpus), ids(1_000));
    let (runtime, mut audit) = (ours::start_in_memory(setting.cpus), workloads::Audit::default());
    Contestant::ours(move |time| {
        let plan = Plan { window, until: Until::Elapsed(time), timed: window == 1 };
        let lap = host.run(plan, |_| Asker::<Counter>::new(&runtime, &ids, Pick::Hot));
        audit.check("ours", &lap, counters::<Counter>(host.handle(), &runtime, &ids));
        lap
    })
}
