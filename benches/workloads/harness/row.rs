//! One row of the table: who takes part, and the rounds they alternate in.

use std::time::Duration;

use super::{drive::Lap, report::Line};

/// In which part a contestant runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The runtime of this project.
    Ours,
    /// What the machine allows.
    Limit,
    /// One actix actor per id behind a dashmap.
    Naive,
    /// Somebody else's work, or a second limit.
    Other,
    /// No rate, and compared with nothing.
    Figure,
}

/// Whoever runs laps in a row.
pub(crate) struct Contestant {
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    pub(crate) lap: Box<dyn FnMut(Duration) -> Lap>,
}

impl Contestant {
    /// The runtime of this project.
    pub(crate) fn ours(lap: impl FnMut(Duration) -> Lap + 'static) -> Self {
        Self { role: Role::Ours, name: "ours", lap: Box::new(lap) }
    }

    /// A limit; of several, the fastest counts.
    pub(crate) fn limit(name: &'static str, lap: impl FnMut(Duration) -> Lap + 'static) -> Self {
        Self { role: Role::Limit, name, lap: Box::new(lap) }
    }

    /// The naive baseline.
    pub(crate) fn naive(lap: impl FnMut(Duration) -> Lap + 'static) -> Self {
        Self { role: Role::Naive, name: "naive", lap: Box::new(lap) }
    }

    /// The same as somebody to compare with.
    #[cfg(feature = "server")]
    pub(crate) fn renamed(self, name: &'static str) -> Self {
        Self { role: Role::Other, name, ..self }
    }

    /// A figure that is no rate, shown beside the rates.
    pub(crate) fn figure(name: &'static str, read: impl Fn() -> u64 + 'static) -> Self {
        let lap = move |_| Lap { ops: read(), elapsed: Duration::from_secs(1), ..Lap::default() };
        Self { role: Role::Figure, name, lap: Box::new(lap) }
    }

    /// Anybody else.
    pub(crate) fn other(name: &'static str, lap: impl FnMut(Duration) -> Lap + 'static) -> Self {
        Self { role: Role::Other, name, lap: Box::new(lap) }
    }
}

/// What is asked of a row; `None` where nothing is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bars {
    /// Ours ÷ limit, at least.
    pub(crate) limit: Option<f64>,
    /// Ours ÷ the slowest of several limits, at least.
    pub(crate) slowest_limit: Option<f64>,
    /// Ours ÷ naive, at least.
    pub(crate) naive: Option<f64>,
    /// Ours a second, at least.
    pub(crate) per_s: Option<f64>,
    /// Median of single calls in µs, at most.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of single calls in µs, at most.
    pub(crate) p99_us: Option<f64>,
    /// Ours ÷ limit of the medians of single calls, at most.
    pub(crate) p50_ratio: Option<f64>,
    /// Ours ÷ the fastest of these peers, at least.
    pub(crate) peers: Option<Peers>,
}

/// A bar against others of the row, by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    pub(crate) names: &'static [&'static str],
    pub(crate) bar: f64,
}

/// One row, ready to run.
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) driver: &'static str,
    pub(crate) durability: &'static str,
    pub(crate) bars: Bars,
    pub(crate) contestants: Vec<Contestant>,
}

/// The rounds of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) count: usize,
    pub(crate) time: Duration,
}

impl Row {
    /// Lets all contestants run, one after the other, round after round; `progress` hears of each lap.
    pub(crate) fn run(mut self, cpus: usize, rounds: Rounds, progress: &mut dyn FnMut(&str)) -> Line {
        let mut line = Line::new(&self, cpus);
        for contestant in &mut self.contestants {
            progress(&format!("{} warm-up {}", self.workload, contestant.name));
            (contestant.lap)(rounds.time / 4);
        }
        for round in 1..=rounds.count {
            let count = self.contestants.len();
            for at in 0..count {
                let at = (at + round) % count;
                let contestant = &mut self.contestants[at];
                progress(&format!("{} round {round}/{} {}", self.workload, rounds.count, contestant.name));
                line.lap(at, &(contestant.lap)(rounds.time));
            }
        }
        line
    }
}
