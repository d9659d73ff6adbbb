//! What a service does, folded from telemetry: bounded, in constant time a sample, volatile until saved.
//!
//! Nothing here is input to a decision; what a later decision may rest on leaves as a `Fact`. It is saved as pages of
//! its own, those that changed only, and a page that cannot be read back is a gap.
//!
//! `fold` takes a batch in; `page` is the form at rest. Forecasts and simulations will read the same parts.

mod baseline;
mod distribution;
mod edge;
mod fold;
mod limits;
mod line;
mod log;
mod num;
mod operation;
mod page;
mod recent;
mod season;
mod series;
mod sketch;
mod stream;
mod tally;
mod usual;

#[cfg(test)]
pub(in crate::twin::service) mod tests;

use baseline::Baselines;
pub(super) use baseline::Fact;
use edge::Edges;
use log::Logs;
use operation::Operations;
use page::{Reader, Writer};
use series::Series;
use stream::Streams;

use crate::{
    model::Timestamp,
    twin::{
        PageWrite, Pages,
        service::{
            Settings,
            view::{BaselineView, BehaviourView},
        },
    },
};

/// Prefix of every page's name.
pub const PREFIX: &str = "observed/";
/// Series in one page.
const SERIES_PER_PAGE: usize = 8;
/// Duplicate batches are recognised among so many.
const BATCHES: usize = 32;
/// From so many series on, pages are written in their tight form.
const TIGHT_FROM: usize = 21;
/// What pages get in bytes, as a rule and in their tight form: streams, each page of operations, and for each of those
/// what is usual of them.
const STREAMS_BYTES: [usize; 2] = [8 * 1024, 4 * 1024];
const OPERATIONS_BYTES: [usize; 2] = [12 * 1024, 8 * 1024];
const LINES_BYTES: [usize; 2] = [13 * 1024, 9 * 1024];

/// The pages, in the order in which they are saved: what counts a stream lies before what was counted from it, and both
/// go together.
const PAGES: [&str; 17] = [
    "observed/streams",
    "observed/operations",
    "observed/operations-1",
    "observed/baselines",
    "observed/rest",
    "observed/series-0",
    "observed/series-1",
    "observed/series-2",
    "observed/series-3",
    "observed/series-4",
    "observed/series-5",
    "observed/series-6",
    "observed/series-7",
    "observed/series-8",
    "observed/series-9",
    "observed/series-10",
    "observed/series-11",
];
const STREAMS: usize = 0;
const OPERATIONS: usize = 1;
const OPERATIONS_MORE: usize = 2;
const BASELINES: usize = 3;
const REST: usize = 4;
const SERIES: usize = 5;

/// What is known of the behaviour of one service.
#[derive(Debug)]
pub(super) struct Observed {
    settings: &'static Settings,
    samples: u64,
    operations: Operations,
    series: Vec<Series>,
    streams: Streams,
    edges: Edges,
    logs: Logs,
    baselines: Baselines,
    batches: [u64; BATCHES],
    batch_next: usize,
    saved: Saved,
}

/// What lies in storage.
#[derive(Debug, Default)]
struct Saved {
    at: Option<Timestamp>,
    dirty: [bool; PAGES.len()],
}

impl Default for Observed {
    fn default() -> Self {
        Self::with(Settings::chosen())
    }
}

impl Observed {
    /// Nothing observed yet, to be kept as these settings say.
    fn with(settings: &'static Settings) -> Self {
        Self {
            settings,
            samples: 0,
            operations: Operations::default(),
            series: Vec::new(),
            streams: Streams::default(),
            edges: Edges::default(),
            logs: Logs::default(),
            baselines: Baselines::default(),
            batches: [0; BATCHES],
            batch_next: 0,
            saved: Saved::default(),
        }
    }

    /// Takes back what was saved.
    pub(super) fn restored(pages: &Pages) -> Self {
        Self::restored_with(Settings::chosen(), pages)
    }

    fn restored_with(settings: &'static Settings, pages: &Pages) -> Self {
        let mut observed = Self::with(settings);
        for (place, name) in PAGES.iter().enumerate() {
            let Some(bytes) = pages.get(*name) else { continue };
            if let Some(mut reader) = Reader::page(bytes) {
                observed.read(place, &mut reader);
            }
        }
        observed
    }

    fn read(&mut self, place: usize, reader: &mut Reader<'_>) -> Option<()> {
        self.saved.at = self.saved.at.max(Some(reader.time()?));
        match place {
            STREAMS => self.streams = Streams::read(reader)?,
            OPERATIONS => {
                self.samples = reader.number()?;
                self.operations.read(reader)?;
            }
            OPERATIONS_MORE => self.operations.read(reader)?,
            BASELINES => {
                self.baselines = Baselines::read(reader)?;
                self.operations.read_lines(reader)?;
            }
            REST => {
                self.edges = Edges::read(reader)?;
                self.logs = Logs::read(reader)?;
                if reader.version() < 2 {
                    self.baselines = Baselines::read(reader)?;
                    // Once this page is written anew it does not have them.
                    self.saved.dirty[BASELINES] = true;
                }
            }
            _ => {
                for _ in 0..reader.count(SERIES_PER_PAGE)? {
                    self.series.push(Series::read(&self.settings.resolutions, reader)?);
                }
            }
        }
        Some(())
    }

    /// Whether something is not saved.
    pub(super) fn unsaved(&self) -> bool {
        self.saved.dirty.contains(&true)
    }

    /// Names of the pages that may be in storage.
    pub(super) fn page_names() -> impl Iterator<Item = &'static str> {
        PAGES.into_iter()
    }

    /// Encodes what changed, at most about `bytes_max`; streams and operations always together.
    pub(super) fn save(&mut self, now: Timestamp, bytes_max: usize) -> Vec<PageWrite> {
        let mut writes = Vec::new();
        let mut bytes = 0;
        for (place, name) in PAGES.iter().enumerate() {
            if !self.saved.dirty[place] {
                continue;
            }
            if place == OPERATIONS_MORE && self.operations.pages() == 1 {
                self.saved.dirty[place] = false;
                continue;
            }
            if place > REST && bytes > 0 && bytes >= bytes_max {
                break;
            }
            let value = self.write(place, now);
            bytes += value.len();
            self.saved.dirty[place] = false;
            writes.push(PageWrite { name: (*name).into(), value: Some(value) });
        }
        if !writes.is_empty() {
            self.saved.at = Some(now);
        }
        writes
    }

    fn write(&self, place: usize, now: Timestamp) -> Vec<u8> {
        let is_tight = self.series.len() >= TIGHT_FROM;
        let form = usize::from(is_tight);
        let mut writer = Writer::page();
        writer.time(now);
        match place {
            STREAMS => self.streams.write(&mut writer, STREAMS_BYTES[form]),
            OPERATIONS => {
                writer.number(self.samples);
                self.operations.write(0, &mut writer, OPERATIONS_BYTES[form]);
            }
            OPERATIONS_MORE => self.operations.write(1, &mut writer, OPERATIONS_BYTES[form]),
            BASELINES => {
                self.baselines.write(&mut writer);
                self.operations.write_lines(&mut writer, LINES_BYTES[form] * self.operations.pages());
            }
            REST => {
                self.edges.write(&mut writer);
                self.logs.write(&mut writer);
            }
            page => {
                let series = self.series.chunks(SERIES_PER_PAGE).nth(page - SERIES).unwrap_or_default();
                writer.number(num::long(series.len()));
                for series in series {
                    series.write(&mut writer, is_tight);
                }
            }
        }
        writer.done()
    }

    /// Bytes on the heap, its own size included: it lies there.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.operations.heap_bytes()
            + self.series.capacity() * size_of::<Series>()
            + self.series.iter().map(Series::heap_bytes).sum::<usize>()
            + self.streams.heap_bytes()
            + self.edges.heap_bytes()
            + self.logs.heap_bytes()
            + self.baselines.heap_bytes()
    }

    fn baselines(&self, now: Timestamp) -> impl Iterator<Item = BaselineView> {
        let of_series = self.series.iter().filter_map(move |series| series.baseline(now));
        self.baselines.view(now).chain(self.operations.baselines(now)).chain(of_series)
    }

    /// What it shows.
    pub(super) fn view(&self, now: Timestamp) -> BehaviourView {
        BehaviourView {
            saved_at: self.saved.at,
            samples: self.samples,
            operations: self.operations.view(now),
            series: self.series.iter().map(|series| series.view(now)).collect(),
            edges: self.edges.view(),
            logs: self.logs.counts,
            errors: self.logs.view(),
            baselines: self.baselines(now).collect(),
        }
    }
}
