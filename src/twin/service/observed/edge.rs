//! What the service calls, from spans and from client metrics side by side; the view shows whichever saw more.

use compact_str::CompactString;

use super::{
    limits::EDGES_MAX,
    num,
    operation::Source,
    page::{Reader, Writer},
};
use crate::{
    model::{
        Timestamp,
        telemetry::{PeerKind, Symbols, cut},
    },
    twin::service::view::EdgeView,
};

/// Longest name, in bytes; cut.
const NAME_BYTES_MAX: usize = 48;

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    errors: u64,
    sum_s: f64,
}

#[derive(Debug)]
struct Edge {
    name: CompactString,
    kind: PeerKind,
    tallies: [Tally; 2],
    last_at: Timestamp,
}

/// The dependencies of one twin; the last one, if there are that many, is `_other`.
#[derive(Debug, Default)]
pub(super) struct Edges {
    all: Vec<Edge>,
}

/// Some calls of one dependency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    pub(super) source: Source,
    pub(super) count: u64,
    pub(super) failed: bool,
    pub(super) sum_s: f64,
    pub(super) at: Timestamp,
}

impl Edges {
    /// The position of a dependency, made if there is room for it.
    pub(super) fn find(&mut self, name: &str, kind: PeerKind) -> usize {
        let name = cut(name, NAME_BYTES_MAX);
        if let Some(at) = self.all.iter().position(|edge| edge.kind == kind && edge.name == name) {
            return at;
        }
        if self.all.len() > EDGES_MAX {
            return EDGES_MAX;
        }
        let (name, kind) = if self.all.len() == EDGES_MAX { (Symbols::OTHER, PeerKind::Address) } else { (name, kind) };
        let tallies = [Tally::default(); 2];
        self.all.push(Edge { name: name.into(), kind, tallies, last_at: Timestamp::ZERO });
        self.all.len() - 1
    }

    /// Takes calls.
    pub(super) fn add(&mut self, at: usize, calls: Calls) {
        let edge = &mut self.all[at];
        let tally = &mut edge.tallies[match calls.source {
            Source::Spans => 0,
            Source::Metrics => 1,
        }];
        tally.count = tally.count.saturating_add(calls.count);
        tally.errors = tally.errors.saturating_add(if calls.failed { calls.count } else { 0 });
        tally.sum_s += calls.sum_s;
        edge.last_at = edge.last_at.max(calls.at);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Edge>() + self.all.iter().map(|edge| edge.name.len()).sum::<usize>()
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.number(num::long(self.all.len()));
        for edge in &self.all {
            writer.text(&edge.name, NAME_BYTES_MAX);
            writer.byte(match edge.kind {
                PeerKind::Service => 0,
                PeerKind::Database => 1,
                PeerKind::Messaging => 2,
                PeerKind::Address => 3,
            });
            writer.time(edge.last_at);
            for tally in &edge.tallies {
                writer.number(tally.count);
                writer.number(tally.errors);
                writer.real(tally.sum_s);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut all = Vec::new();
        for _ in 0..reader.count(EDGES_MAX + 1)? {
            let name = reader.text()?;
            let kind = match reader.byte()? {
                0 => PeerKind::Service,
                1 => PeerKind::Database,
                2 => PeerKind::Messaging,
                3 => PeerKind::Address,
                _ => return None,
            };
            let last_at = reader.time()?;
            let mut tallies = [Tally::default(); 2];
            for tally in &mut tallies {
                *tally = Tally { count: reader.number()?, errors: reader.number()?, sum_s: reader.real()? };
            }
            all.push(Edge { name, kind, tallies, last_at });
        }
        Some(Self { all })
    }

    pub(super) fn view(&self) -> Vec<EdgeView> {
        let view = |edge: &Edge| {
            let [spans, metrics] = edge.tallies;
            let tally = if metrics.count > spans.count { metrics } else { spans };
            EdgeView {
                peer: edge.name.clone(),
                kind: edge.kind,
                count: tally.count,
                errors: tally.errors,
                mean_s: tally.sum_s / num::real(tally.count.max(1)),
                last_at: edge.last_at,
            }
        };
        self.all.iter().map(view).collect()
    }
}
