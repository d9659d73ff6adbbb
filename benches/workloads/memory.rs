//! W5: resident bytes per idle twin. Each subject has a fresh process, so that nothing was freed before and nothing has
//! to be trimmed; the growth of its resident set over a million activations is divided by their number.

use std::sync::Arc;

use super::{
    Arbiters, Host, Pick, Plan, Until, WINDOW,
    harness::machine,
    limits::lock,
    naive::actor::Registry,
    ours::{self, Asker, Counter},
};

const TWINS: u64 = 1_000_000;

/// How many ids are held at a time while twins are made; they are no part of the figure.
pub(crate) const SLICE: u64 = 10_000;

/// Whose bytes are measured, and how.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) role: &'static str,
    pub(crate) name: &'static str,
    pub(crate) bytes_each: fn(cpus: usize) -> f64,
}

/// The runtime of this project.
pub(crate) const OURS: Subject = Subject { role: "ours", name: "ours", bytes_each: ours };

/// Everybody of W5.
pub(crate) const SUBJECTS: &[Subject] = &[
    OURS,
    Subject { role: "limit", name: "dashmap of states", bytes_each: dashmap },
    Subject { role: "naive", name: "naive", bytes_each: naive },
];

fn ours(cpus: usize) -> f64 {
    let (host, runtime) = (Host::start(cpus), ours::start_in_memory(cpus));
    growth(TWINS, |ids| {
        let lap = host.run(SLICED, |_| Asker::<Counter>::new(&runtime, &ids, Pick::InOrder));
        assert_eq!(lap.sum, SLICE, "some reply was wrong");
    })
}

fn dashmap(cpus: usize) -> f64 {
    let (host, map) = (Host::start(cpus), lock::Map::default());
    let bytes = growth(TWINS, |ids| {
        let client = lock::Cold { map: map.clone(), ids };
        let lap = host.run(SLICED, |_| client.clone());
        assert_eq!(lap.sum, SLICE, "some reply was wrong");
    });
    assert_eq!(map.len(), usize::try_from(TWINS).expect("a count"), "all are there");
    bytes
}

fn naive(cpus: usize) -> f64 {
    let arbiters = Arbiters::start(cpus);
    let mut registry = Registry::new(&Arc::from([]), Pick::InOrder);
    growth(TWINS, move |ids| {
        registry = registry.over(ids);
        let lap = arbiters.run(SLICED, |_| registry.clone());
        assert_eq!(lap.sum, SLICE, "some reply was wrong");
    })
}

const SLICED: Plan = Plan { window: WINDOW, until: Until::Count(SLICE), timed: false };

/// Bytes by which this process grows for each twin that `activate` makes.
pub(crate) fn growth(twins: u64, mut activate: impl FnMut(Arc<[String]>)) -> f64 {
    let slice = |from: u64| (from..from + SLICE).map(|at| format!("twin/{at:08}")).collect::<Arc<[String]>>();
    activate(slice(0));
    let before = machine::resident_bytes();
    for from in (SLICE..twins).step_by(usize::try_from(SLICE).expect("a count")) {
        activate(slice(from));
    }
    let grown = machine::resident_bytes().saturating_sub(before);
    super::harness::report::float(grown) / super::harness::report::float(twins - SLICE)
}
