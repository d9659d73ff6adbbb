//! Rate, errors and duration per operation and version, from spans and from metrics side by side.
//!
//! A service may send both, about the same requests. They are kept apart, and the view shows the counts of whichever
//! saw more: metrics where spans are sampled, spans where they are all there is. Durations come from spans, which know
//! them exactly, unless they saw less than half.

use compact_str::{CompactString, format_compact};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    baseline::Fact,
    distribution::Distribution,
    limits::{
        ALERT_KEY_BYTES_MAX, MEASUREMENTS_MIN, METRICS_LATE_MS, OPERATION, PAIR_STALE_MS, REQUESTS_MIN, SPANS_LATE_MS,
    },
    line::{Key, Line, Seen},
    num,
    page::{Reader, Writer},
    recent::{BINS, Recent},
    season::Season,
};
use crate::{
    model::{
        Timestamp,
        telemetry::{SpanKind, Symbols, cut},
    },
    twin::service::{
        limits::VERSION_BYTES_MAX,
        settings::PAIRS_MAX,
        view::{BaselineView, OperationView, Status},
    },
};

/// Steps whose counts are kept and can still be judged.
const STEPS_KEPT: u64 = 3;
/// What is written of a line beside its season.
const LINE_BYTES: usize = 60;
/// Longest name kept, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Pairs in one page: as many as there are if nothing else was chosen, and `_other`.
const PAIRS_PER_PAGE: usize = 25;
const _: () = assert!(PAIRS_MAX < 2 * PAIRS_PER_PAGE, "there are two pages");

/// Where numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Spans,
    Metrics,
}

impl Source {
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Spans => 0,
            Self::Metrics => 1,
        }
    }
}

/// Rate, errors, duration from one source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Red {
    count: u64,
    errors: u64,
    recent: Recent,
    pub(super) durations: Distribution,
    last_at: Timestamp,
}

impl Default for Red {
    fn default() -> Self {
        Self {
            count: 0,
            errors: 0,
            recent: Recent::default(),
            durations: Distribution::default().judged(),
            last_at: Timestamp::ZERO,
        }
    }
}

impl Red {
    /// Takes one operation.
    pub(super) fn one(&mut self, at: Timestamp, seconds: f64, failed: bool) {
        self.note(at, at, 1, failed);
        self.durations.one(at, seconds);
    }

    /// Counts operations between two times; their durations are the caller's business.
    pub(super) fn note(&mut self, from: Timestamp, to: Timestamp, count: u64, failed: bool) {
        let errors = if failed { count } else { 0 };
        self.count = self.count.saturating_add(count);
        self.errors = self.errors.saturating_add(errors);
        self.recent.add(from, to, num::real(count), num::real(errors));
        self.last_at = self.last_at.max(to);
    }

    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.errors = self.errors.saturating_add(other.errors);
        self.durations.merge(&other.durations);
        self.last_at = self.last_at.max(other.last_at);
    }

    fn write(&self, writer: &mut Writer, bytes_max: usize) {
        writer.number(self.count);
        writer.number(self.errors);
        writer.time(self.last_at);
        self.recent.write(writer);
        self.durations.write(writer, bytes_max.saturating_sub(2 * BINS + 24));
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut red =
            Self { count: reader.number()?, errors: reader.number()?, last_at: reader.time()?, ..Self::default() };
        red.recent = Recent::read(reader)?;
        red.durations = Distribution::read(reader)?.judged();
        Some(red)
    }
}

/// One operation at one version.
#[derive(Debug)]
struct Pair {
    hash: u64,
    name: CompactString,
    version: CompactString,
    kind: SpanKind,
    first_at: Timestamp,
    red: [Option<Box<Red>>; 2],
    /// What is usual; not for `_other`, of which nothing is.
    lines: Option<Box<[Line; 3]>>,
    /// Number of the next step to judge; 0 before the first.
    next: u64,
}

/// The pairs of one twin; one of them, if there are too many, is `_other`.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pairs: Vec<Pair>,
}

const fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

const KINDS: [SpanKind; 5] =
    [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];

/// Position of a kind among all.
pub(super) const fn kind_index(kind: SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 0,
        SpanKind::Server => 1,
        SpanKind::Client => 2,
        SpanKind::Producer => 3,
        SpanKind::Consumer => 4,
    }
}

/// Whether operations of a kind are what the service is asked to do.
pub(super) const fn is_entry(kind: SpanKind) -> bool {
    match kind {
        SpanKind::Server | SpanKind::Consumer => true,
        SpanKind::Internal | SpanKind::Client | SpanKind::Producer => false,
    }
}

fn hash_of(name: &str, version: &str, kind: SpanKind) -> u64 {
    xxh3_64(name.as_bytes()) ^ xxh3_64(version.as_bytes()).rotate_left(8 + u32::from(kind_index(kind)))
}

impl Operations {
    /// The position of a pair, made if there is room for it among at most `pairs_max`.
    pub(super) fn find(
        &mut self,
        name: &str,
        version: &str,
        kind: SpanKind,
        now: Timestamp,
        pairs_max: usize,
    ) -> usize {
        // As a page keeps it, so that it is found again.
        let (name, version) = (cut(name, NAME_BYTES_MAX), cut(version, VERSION_BYTES_MAX));
        let hash = hash_of(name, version, kind);
        let is_it =
            |pair: &Pair| pair.hash == hash && pair.kind == kind && pair.name == name && pair.version == version;
        if let Some(at) = self.pairs.iter().position(is_it) {
            return at;
        }
        let pair = |name: &str, version: &str, kind, hash| Pair {
            hash,
            name: name.into(),
            version: version.into(),
            kind,
            first_at: now,
            red: [None, None],
            lines: None,
            next: 0,
        };
        let other = self.pairs.iter().position(Pair::is_other);
        if self.pairs.len() - usize::from(other.is_some()) < pairs_max {
            let lines = Some(self.usual(name, kind));
            self.pairs.push(Pair { lines, ..pair(name, version, kind, hash) });
            return self.pairs.len() - 1;
        }
        let other = other.unwrap_or_else(|| {
            self.pairs.push(pair(Symbols::OTHER, "", SpanKind::Internal, 0));
            self.pairs.len() - 1
        });
        let Some(at) = self.stalest(now) else { return other };
        let lines = Some(self.usual(name, kind));
        let fresh = Pair { lines, ..pair(name, version, kind, hash) };
        let gone = std::mem::replace(&mut self.pairs[at], fresh);
        for (red, other) in gone.red.iter().zip(&mut self.pairs[other].red) {
            if let Some(red) = red {
                other.get_or_insert_default().merge(red);
            }
        }
        at
    }

    /// What is usual for a new pair: what was for the version before it.
    fn usual(&self, name: &str, kind: SpanKind) -> Box<[Line; 3]> {
        let before = self.pairs.iter().filter(|pair| pair.kind == kind && pair.name == name);
        let before = before.max_by_key(|pair| pair.last_at()).and_then(|pair| pair.lines.as_deref());
        Box::new(before.map_or_else(|| Key::ALL.map(Line::new), |lines| lines.each_ref().map(Line::heir)))
    }

    fn stalest(&self, now: Timestamp) -> Option<usize> {
        let named = self.pairs.iter().enumerate().filter(|(_, pair)| !pair.is_other());
        let oldest = named.min_by_key(|(_, pair)| pair.last_at());
        let is_stale = |pair: &Pair| pair.last_at().unix_ms().saturating_add(PAIR_STALE_MS) < now.unix_ms();
        oldest.filter(|(_, pair)| is_stale(pair)).map(|(at, _)| at)
    }

    /// The numbers of a pair.
    pub(super) fn red(&mut self, at: usize, source: Source) -> &mut Red {
        self.pairs[at].red[source.index()].get_or_insert_default()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pairs.capacity() * size_of::<Pair>()
            + self
                .pairs
                .iter()
                .flat_map(|pair| pair.red.iter().flatten())
                .map(|red| size_of::<Red>() + red.durations.heap_bytes())
                .sum::<usize>()
            + self
                .lines()
                .map(|(_, lines)| size_of_val(lines) + lines.iter().map(Line::heap_bytes).sum::<usize>())
                .sum::<usize>()
    }

    fn lines(&self) -> impl Iterator<Item = (&Pair, &[Line; 3])> {
        self.pairs.iter().filter_map(|pair| Some((pair, pair.lines.as_deref()?)))
    }

    /// Judges the steps of every pair that are complete and says what that opened or closed; whether there were any.
    pub(super) fn close(&mut self, now: Timestamp, is_open: impl Fn(&str) -> bool, facts: &mut Vec<Fact>) -> bool {
        let mut any = false;
        for pair in &mut self.pairs {
            any |= pair.close(now, &is_open, facts);
        }
        any
    }

    /// Whether an alert is about an operation that is not judged any longer: nothing else would ever close it.
    pub(super) fn is_orphan(&self, key: &str) -> bool {
        let is_of = |pair: &Pair| Key::ALL.iter().any(|ours| pair.alerts(*ours) && pair.alert(*ours) == key);
        Fact::is_of_operation(key) && !self.lines().any(|(pair, _)| is_of(pair))
    }

    /// What is expected of each pair.
    pub(super) fn baselines(&self, now: Timestamp) -> impl Iterator<Item = BaselineView> {
        self.lines()
            .flat_map(move |(pair, lines)| lines.iter().filter_map(move |line| line.view(pair.alert(line.key()), now)))
    }

    /// Writes what is usual, within about `bytes_max`; after [`Operations::write`], in the same order.
    pub(super) fn write_lines(&self, writer: &mut Writer, bytes_max: usize) {
        let lines = || self.lines().flat_map(|(pair, lines)| lines.iter().map(|line| (pair.alerts(line.key()), line)));
        let mut left = bytes_max.saturating_sub(lines().count() * LINE_BYTES);
        // What opens alerts first: those shall not open again each week because the twin was away.
        let [alerting, others] = [true, false].map(|alerts| {
            let among = lines().filter(|line| line.0 == alerts).count();
            let each = (left / among.max(1)).min(Season::BYTES_MAX);
            left -= each * among;
            each
        });
        writer.number(num::long(self.lines().count()));
        for (pair, lines) in self.lines() {
            writer.fixed(pair.hash);
            for line in lines {
                line.write(writer, if pair.alerts(line.key()) { alerting } else { others });
            }
        }
    }

    /// Takes back what [`Operations::write_lines`] wrote; of a pair that is not there, nothing.
    pub(super) fn read_lines(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        for _ in 0..reader.count(PAIRS_MAX)? {
            let hash = reader.fixed()?;
            let [rate, errors, duration] = Key::ALL;
            let lines = [Line::read(rate, reader)?, Line::read(errors, reader)?, Line::read(duration, reader)?];
            if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.hash == hash && pair.lines.is_some()) {
                pair.lines = Some(Box::new(lines));
            }
        }
        Some(())
    }

    /// How many pages they are written in.
    pub(super) fn pages(&self) -> usize {
        self.pairs.len().div_ceil(PAIRS_PER_PAGE).max(1)
    }

    /// Writes those of one page, within about `bytes_max`.
    pub(super) fn write(&self, page: usize, writer: &mut Writer, bytes_max: usize) {
        let pairs = self.pairs.chunks(PAIRS_PER_PAGE).nth(page).unwrap_or_default();
        let whole = |red: &Red| {
            let mut writer = Writer::bare();
            red.write(&mut writer, usize::MAX);
            writer
        };
        let whole: Vec<Writer> =
            pairs.iter().flat_map(|pair| pair.red.iter().flatten()).map(|red| whole(red)).collect();
        let sources = whole.len();
        let each = fair(bytes_max.saturating_sub(40 * sources), whole.iter().map(Writer::len).collect());
        let mut whole = whole.iter();
        writer.number(num::long(pairs.len()));
        for pair in pairs {
            writer.text(&pair.name, NAME_BYTES_MAX);
            writer.text(&pair.version, VERSION_BYTES_MAX);
            writer.byte(kind_index(pair.kind));
            writer.fixed(pair.hash);
            writer.time(pair.first_at);
            for red in &pair.red {
                writer.byte(u8::from(red.is_some()));
                let Some(red) = red else { continue };
                match whole.next().filter(|whole| whole.len() <= each) {
                    Some(whole) => writer.append(whole),
                    None => red.write(writer, each),
                }
            }
        }
    }

    /// Takes back one more page.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut pairs = Vec::new();
        for _ in 0..reader.count((PAIRS_MAX + 1).saturating_sub(self.pairs.len()))? {
            let (name, version) = (reader.text()?, reader.text()?);
            let kind = *KINDS.get(usize::from(reader.byte()?))?;
            let (hash, first_at) = (reader.fixed()?, reader.time()?);
            let mut red = [None, None];
            for red in &mut red {
                if reader.byte()? == 1 {
                    *red = Some(Box::new(Red::read(reader)?));
                }
            }
            // One of a longer name had the hash of all of it once.
            let hash = if hash == 0 { 0 } else { hash_of(&name, &version, kind) };
            let mut pair = Pair { hash, name, version, kind, first_at, red, lines: None, next: 0 };
            pair.lines = (!pair.is_other()).then(|| Box::new(Key::ALL.map(Line::new)));
            pairs.push(pair);
        }
        self.pairs.append(&mut pairs);
        Some(())
    }

    /// What each pair shows.
    pub(super) fn view(&self, now: Timestamp) -> Vec<OperationView> {
        self.pairs.iter().filter_map(|pair| pair.view(now)).collect()
    }
}

/// What each may have of some bytes, so that what one does not need the others get.
fn fair(bytes: usize, mut needs: Vec<usize>) -> usize {
    needs.sort_unstable();
    let (mut left, mut takers) = (bytes, needs.len());
    for need in needs {
        if need > left / takers {
            return left / takers;
        }
        left -= need;
        takers -= 1;
    }
    usize::MAX
}

impl Pair {
    /// Whether it counts what found no room. An operation that its sender calls so has a hash.
    fn is_other(&self) -> bool {
        self.hash == 0 && self.name == Symbols::OTHER
    }

    fn last_at(&self) -> Timestamp {
        self.red.iter().flatten().map(|red| red.last_at).max().unwrap_or(self.first_at)
    }

    /// Whose counts are shown, and whose durations.
    fn sources(&self) -> (Source, Source) {
        let count_of = |source: Source| self.red[source.index()].as_ref().map_or(0, |red| red.count);
        let counting =
            if count_of(Source::Metrics) > count_of(Source::Spans) { Source::Metrics } else { Source::Spans };
        let timing = if count_of(Source::Spans) >= count_of(counting).div_ceil(2) { Source::Spans } else { counting };
        (counting, timing)
    }

    /// Whether a key series of it may open an alert: versions come and go, so traffic of one that goes is no alert;
    /// calls made are others' operations.
    fn alerts(&self, key: Key) -> bool {
        key != Key::Rate && is_entry(self.kind)
    }

    /// The name of a key series of it: `errors POST /orders (2.0.0)`, `errors orders [consumer] (2.0.0)`.
    fn alert(&self, key: Key) -> CompactString {
        let mut name = format_compact!("{} {}", key.name(), self.name);
        // Most are served. Another kind may have the same name, as a call made and the one it became have.
        if self.kind != SpanKind::Server {
            name.push_str(&format_compact!(" [{}]", kind_name(self.kind)));
        }
        if !self.version.is_empty() {
            name.push_str(&format_compact!(" ({})", self.version));
        }
        if name.len() > ALERT_KEY_BYTES_MAX {
            let kept = cut(&name, ALERT_KEY_BYTES_MAX - 10);
            name = format_compact!("{kept}~{:08x}", num::low(self.hash));
        }
        name
    }

    /// Judges the steps that are complete; whether there were any.
    fn close(&mut self, now: Timestamp, is_open: impl Fn(&str) -> bool, facts: &mut Vec<Fact>) -> bool {
        let (counting, timing) = self.sources();
        let late_ms = match counting {
            Source::Spans => SPANS_LATE_MS.1,
            Source::Metrics => METRICS_LATE_MS,
        };
        let until = now.unix_ms().saturating_sub(late_ms) / OPERATION.step_ms;
        if until <= self.next {
            return false;
        }
        if self.lines.is_none() {
            return false;
        }
        let keys = Key::ALL.map(|key| self.alerts(key).then(|| self.alert(key)));
        let Some(lines) = &mut self.lines else { return false };
        // After silence, or at first: nothing is known of the steps between, and of the first only a part.
        let missed = until - self.next;
        if self.next == 0 || missed > STEPS_KEPT {
            if self.next > 0 {
                facts.extend(lines.iter_mut().zip(&keys).filter_map(|(line, key)| {
                    let key = key.as_ref()?;
                    line.rest(&OPERATION, missed, is_open(key)).then(|| Fact::Close { key: key.clone() })
                }));
            }
            self.next = until;
            return true;
        }
        // Once it is asked, the other source is not to answer for all the time before.
        let silent = if timing == Source::Spans { Source::Metrics } else { Source::Spans };
        if let Some(red) = &mut self.red[silent.index()] {
            red.durations.skip();
        }
        while self.next < until {
            let counts = self.red[counting.index()].as_ref();
            let (count, errors) = counts.map_or((0.0, 0.0), |red| red.recent.step(self.next * OPERATION.step_ms));
            let timed = self.red[timing.index()].as_mut();
            let slow = timed.and_then(|red| red.durations.judge(0.95, MEASUREMENTS_MIN));
            for (line, key) in lines.iter_mut().zip(&keys) {
                let opened = key.as_ref().is_some_and(|key| is_open(key));
                let value = match line.key() {
                    Key::Rate => Some(count * 1e3 / num::real(OPERATION.step_ms)),
                    Key::Errors => (count >= REQUESTS_MIN || (opened && count > 0.0)).then(|| errors / count),
                    Key::Duration => slow,
                    Key::Level => None,
                };
                let turned =
                    line.judge(&OPERATION, self.next * OPERATION.step_ms, Seen { value, failures: errors }, opened);
                if let (Some(turned), Some(key)) = (turned, key) {
                    facts.push(Fact::of(turned, key.clone(), Status::Degraded));
                }
            }
            self.next += 1;
        }
        true
    }

    fn view(&self, now: Timestamp) -> Option<OperationView> {
        let (counting, timing) = self.sources();
        let counts = self.red[counting.index()].as_ref()?;
        let durations = &self.red[timing.index()].as_ref()?.durations;
        let (recent, recent_errors) = counts.recent.sums(now);
        let (ever, window) = durations.view(now);
        let window_s = (now.since(self.first_at).as_secs_f64()).clamp(10.0, 300.0);
        Some(OperationView {
            operation: self.name.clone(),
            version: self.version.clone(),
            kind: CompactString::const_new(kind_name(self.kind)),
            source: CompactString::const_new(match counting {
                Source::Spans => "spans",
                Source::Metrics => "metrics",
            }),
            count: counts.count,
            errors: counts.errors,
            rate: recent / window_s,
            error_ratio: if recent > 0.0 { recent_errors / recent } else { 0.0 },
            sum_s: counts.durations.sum(),
            p50_s: window.p50,
            p90_s: window.p90,
            p95_s: window.p95,
            p99_s: window.p99,
            max_s: window.max,
            ever,
            last_at: counts.last_at,
        })
    }
}
