//! The workloads, each defined once: `twin bench` and `cargo bench` run them from here.
//!
//! A row runs in a process of its own, pinned to its CPUs; ours, the limit and the naive baseline alternate in it.
//! Start with [`ROWS`]; what a figure means is in `docs/performance.md`.

pub(crate) mod activation;
#[cfg(feature = "dapr")]
pub(crate) mod capabilities;
pub(crate) mod durable;
#[cfg(feature = "server")]
pub(crate) mod edge;
pub(crate) mod harness;
#[cfg(feature = "server")]
pub(crate) mod ingest;
#[path = "../limits/mod.rs"]
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod messaging;
#[path = "../naive/mod.rs"]
pub(crate) mod naive;
pub(crate) mod ours;
pub(crate) mod run;
#[cfg(feature = "server")]
pub(crate) mod search;
pub(crate) mod service;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod volley;

pub(crate) use harness::drive::{Arbiters, Audit, Client, Host, Lap, Plan, Until, passes};
pub(crate) use harness::row::{Bars, Contestant, Peers, Row};
pub(crate) use run::{Options, run};
pub(crate) use state::{Ledger, Pick, State, hot, ids, ledger_bytes, ledger_from, ledger_to};

/// Client loops of a row with "window 256".
pub(crate) const WINDOW: u64 = 256;

/// What a row is built for.
pub(crate) struct Setting {
    /// CPUs the process is pinned to.
    pub(crate) cpus: usize,
    /// A folder of this run's own, removed afterwards.
    pub(crate) dir: std::path::PathBuf,
    /// Whether a smaller one will do.
    pub(crate) quick: bool,
}

/// Where the client loops of ours run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Driver {
    /// (a): on the threads that host the twins.
    Arbiters,
    /// (b): on a host's own runtime.
    Host,
}

impl Driver {
    /// As a row names it.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Arbiters => "a",
            Self::Host => "b",
        }
    }
}

/// One entry of the list of rows.
pub(crate) struct Entry {
    /// What `twin bench W1` selects; a name selects all rows it is the start of up to a `+` or `-`.
    pub(crate) name: &'static str,
    /// The question it answers.
    pub(crate) question: &'static str,
    /// CPU counts it runs with unless `--cpus` says otherwise.
    pub(crate) cpus: &'static [usize],
    /// How it is run.
    pub(crate) work: Work,
}

/// Rates alternate in one process; bytes are measured in a fresh process each.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// A row of contestants.
    Rates(fn(&Setting) -> Row),
    /// Resident bytes per idle twin, one child process for each of these.
    Bytes {
        /// Whose.
        subjects: &'static [memory::Subject],
        /// The bar under the system's allocator and under mimalloc.
        most: [f64; 2],
        /// The bar against others: ours ÷ the smallest of these, at most.
        peers: Option<Peers>,
    },
}

/// Every row, in the order of the table.
pub(crate) const ROWS: &[Entry] = &[
    Entry {
        name: "W1",
        question: "cold activations a second: 100,000 ids never seen, one increment each, window 256",
        cpus: &[1, 2],
        work: Work::Rates(activation::cold),
    },
    Entry {
        name: "W1+memory",
        question: "the same with every change encoded and committed to the memory store",
        cpus: &[1, 2],
        work: Work::Rates(activation::cold_in_memory),
    },
    Entry {
        name: "W1-driver-a",
        question: "W1 with the client loops on the threads that host the twins",
        cpus: &[1, 2],
        work: Work::Rates(activation::cold_on_arbiters),
    },
    Entry {
        name: "W2",
        question: "re-activations a second from sled by a read: 100,000 states of 1 KiB, store just opened, warm",
        cpus: &[2],
        work: Work::Rates(activation::again),
    },
    Entry {
        name: "W2+write",
        question: "the same by an increment, committed at fsync before the reply",
        cpus: &[2],
        work: Work::Rates(activation::again_writing),
    },
    Entry {
        name: "W3",
        question: "hot asks a second: 1,000 twins found by id, window 256",
        cpus: &[1, 2],
        work: Work::Rates(messaging::hot_asks),
    },
    Entry {
        name: "W3-driver-a",
        question: "W3 with the client loops on the threads that host the twins",
        cpus: &[1, 2],
        work: Work::Rates(messaging::hot_asks_on_arbiters),
    },
    Entry {
        name: "W3-window-1",
        question: "the same with one caller: how long one ask takes from a host's own runtime",
        cpus: &[2],
        work: Work::Rates(messaging::one_caller),
    },
    Entry {
        name: "W3+memory",
        question: "W3 with every change encoded and committed to the memory store",
        cpus: &[2],
        work: Work::Rates(messaging::hot_asks_in_memory),
    },
    Entry {
        name: "W3-twin-to-twin",
        question: "one twin asks another in its own shard: the mean of a call, two turns",
        cpus: &[2],
        work: Work::Rates(volley::twin_to_twin),
    },
    Entry {
        name: "W3h",
        question: "asks a second on one hot twin whose turns take 2 µs, window 256; p99 of a call",
        cpus: &[2],
        work: Work::Rates(messaging::one_hot_twin),
    },
    Entry {
        name: "W4",
        question: "durable updates a second: 1,000 twins of 1 KiB, window 256, the reply after fdatasync",
        cpus: &[2],
        work: Work::Rates(durable::updates),
    },
    Entry {
        name: "W4-window-1",
        question: "the same with one caller: how long one durable update takes",
        cpus: &[2],
        work: Work::Rates(durable::one_caller),
    },
    Entry {
        name: "W4h",
        question: "the same as W4 on one hot twin, beside the raw figure of W4",
        cpus: &[2],
        work: Work::Rates(durable::one_hot_twin),
    },
    Entry {
        name: "W4h+keys",
        question: "the same with an idempotency key on each call, window 64",
        cpus: &[2],
        work: Work::Rates(durable::one_hot_twin_keyed),
    },
    Entry {
        name: "start",
        question: "start with 1,000,000 stored twins and 1,000 due reminders; p50, p99: from ready to the first one fired",
        cpus: &[2],
        work: Work::Rates(start::start),
    },
    #[cfg(feature = "server")]
    Entry {
        name: "search",
        question: "pages of 100 found over HTTP among 1,000,000 service twins, one connection; p99 of a page",
        cpus: &[2],
        work: Work::Rates(search::page_of_100),
    },
    Entry {
        name: "W5",
        question: "resident bytes per idle twin: 1,000,000 of them, ids and directory included",
        cpus: &[2],
        work: Work::Bytes { subjects: memory::SUBJECTS, most: [380.0, 460.0], peers: None },
    },
    Entry {
        name: "W4s",
        question: "durable writes to 1,000 service twins with full models, beside raw sled with the same keys and bytes",
        cpus: &[2],
        work: Work::Rates(service::full_and_durable),
    },
    Entry {
        name: "model",
        question: "a sample in the behaviour model, operation and series found; decoding not included",
        cpus: &[1],
        work: Work::Rates(service::model),
    },
    Entry {
        name: "service-untouched",
        question: "resident bytes of a service twin's state that has seen nothing",
        cpus: &[1],
        work: Work::Bytes { subjects: service::UNTOUCHED, most: [1_024.0, 1_024.0], peers: None },
    },
    Entry {
        name: "service-full",
        question: "the same after 90 simulated days of 10 operations and 20 series",
        cpus: &[1],
        work: Work::Bytes { subjects: service::FULL, most: [204_800.0, 204_800.0], peers: None },
    },
    #[cfg(feature = "server")]
    Entry {
        name: "W6-read-16",
        question: "GET of one twin's attribute over HTTP with key check, metrics and tracing, 16 connections",
        cpus: &[2],
        work: Work::Rates(edge::read_16),
    },
    #[cfg(feature = "server")]
    Entry {
        name: "W6-read-64",
        question: "the same over 64 connections",
        cpus: &[2],
        work: Work::Rates(edge::read_64),
    },
    #[cfg(feature = "server")]
    Entry {
        name: "W6-write-64",
        question: "a feature's desired state put over HTTP, answered at fsync, 64 connections",
        cpus: &[2],
        work: Work::Rates(edge::write_64),
    },
    #[cfg(feature = "server")]
    Entry {
        name: "ingest-spans",
        question: "spans a second from OTLP bytes into the models: 512 spans x 12 attributes over 20 services",
        cpus: &[2],
        work: Work::Rates(ingest::spans),
    },
    #[cfg(feature = "server")]
    Entry {
        name: "ingest-metrics",
        question: "points a second from OTLP bytes into the models: 200 metrics x 8 attributes, 30 % histograms",
        cpus: &[2],
        work: Work::Rates(ingest::metrics),
    },
    #[cfg(feature = "dapr")]
    Entry {
        name: "get-state-http",
        question: "GetState over Dapr's HTTP, 64 services on a connection each, beside the same server's /livez",
        cpus: &[2],
        work: Work::Rates(capabilities::get_http),
    },
    #[cfg(feature = "dapr")]
    Entry {
        name: "get-state-grpc",
        question: "the same over gRPC, 64 callers on 16 connections, beside a method that does nothing",
        cpus: &[2],
        work: Work::Rates(capabilities::get_grpc),
    },
    #[cfg(feature = "dapr")]
    Entry {
        name: "save-state-http",
        question: "SaveState over Dapr's HTTP, answered at fsync, 64 connections, beside raw sled and /livez",
        cpus: &[2],
        work: Work::Rates(capabilities::save_http),
    },
    #[cfg(feature = "dapr")]
    Entry {
        name: "topic",
        question: "messages from one publisher to one streaming subscriber over gRPC, each durable and settled",
        cpus: &[2],
        work: Work::Rates(capabilities::topic),
    },
    #[cfg(feature = "dapr")]
    Entry {
        name: "ruling",
        question: "a ruling in the turn: 32 grants beside the profile, a token narrowed twice; the read included",
        cpus: &[1],
        work: Work::Rates(capabilities::ruling),
    },
];
