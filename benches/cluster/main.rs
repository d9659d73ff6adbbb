//! `cargo bench --bench cluster -- [remote-ask …] [--rounds n] [--seconds s] [--json] [--quick] [--list]`: what a cluster
//! costs, against real nats-servers that the bench starts on loopback and ends. `NATS_SERVER` names the program.
//!
//! All nodes of a row live in one process and share its CPUs with the callers and the servers; so do the limits.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "the environment names the server; a bench reads the clock")]

use std::process::ExitCode;

use workloads::{Entry, Options, Work, run};

#[path = "../limits/nats_batch.rs"]
mod nats_batch;
#[path = "../limits/nats_read.rs"]
mod nats_read;
mod nodes;
mod remote;
#[path = "../../tests/cluster/servers.rs"]
#[expect(dead_code, reason = "shared with the tests, which also kill servers")]
mod servers;
mod take_over;
#[path = "../limits/tonic_echo.rs"]
mod tonic_echo;
mod updates;
#[path = "../workloads/mod.rs"]
#[expect(dead_code, reason = "shared with the project's own bench, which runs more of it")]
mod workloads;
mod world;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: &[Entry] = &[
    Entry {
        name: "remote-ask",
        question: "asks a second by one node of 1,000 twins of another, window 256",
        cpus: &[2],
        work: Work::Rates(remote::asks),
    },
    Entry {
        name: "remote-ask-window-1",
        question: "the same with one caller: how long one remote ask takes",
        cpus: &[2],
        work: Work::Rates(remote::one_caller),
    },
    Entry {
        name: "fenced-updates",
        question: "durable updates a second of 4,096 twins of 1 KiB on three servers, window 256",
        cpus: &[2],
        work: Work::Rates(updates::fenced),
    },
    Entry {
        name: "take-over",
        question: "first asks a second of 8,192 stored twins, on a node that has just taken their slots, window 256",
        cpus: &[2],
        work: Work::Rates(take_over::first_asks),
    },
    Entry {
        name: "nodes-1",
        question: "asks of 1,000 twins, and durable updates, in a cluster of one node",
        cpus: &[2],
        work: Work::Rates(nodes::of_1),
    },
    Entry {
        name: "nodes-2",
        question: "the same in a cluster of two nodes, every ask to another one than the caller's",
        cpus: &[2],
        work: Work::Rates(nodes::of_2),
    },
    Entry { name: "nodes-4", question: "the same of four nodes", cpus: &[2], work: Work::Rates(nodes::of_4) },
    Entry { name: "nodes-8", question: "the same of eight nodes", cpus: &[2], work: Work::Rates(nodes::of_8) },
    Entry {
        name: "twins-1k",
        question: "remote asks a second, spread over 1,000 active twins of two nodes",
        cpus: &[2],
        work: Work::Rates(nodes::twins_1k),
    },
    Entry { name: "twins-10k", question: "the same over 10,000", cpus: &[2], work: Work::Rates(nodes::twins_10k) },
    Entry { name: "twins-100k", question: "the same over 100,000", cpus: &[2], work: Work::Rates(nodes::twins_100k) },
    Entry { name: "twins-1m", question: "the same over 1,000,000", cpus: &[2], work: Work::Rates(nodes::twins_1m) },
    Entry {
        name: "claims",
        question: "slots a second that a lone node claims, of 4,096, beside 10,000 stored twins",
        cpus: &[2],
        work: Work::Rates(take_over::claims),
    },
];

fn main() -> ExitCode {
    run(&Options::from_args(), ROWS)
}
