//! What is expected of the service as a whole, and when it deviates.
//!
//! Three key series (rate, share of errors, mean duration of the requests served) move in short steps, so that trouble
//! shows soon; those of single operations, in `operation`, move in longer ones. How they are judged: `line`.

use compact_str::CompactString;

use super::{
    limits::{ERRORS_BROKEN, METRICS_LATE_MS, REQUESTS_MIN, SERVICE, SPANS_LATE_MS},
    line::{Key, Line, Seen, Turned},
    num,
    operation::Source,
    page::{Reader, Writer},
    season::Season,
};
use crate::{
    model::Timestamp,
    twin::service::view::{BaselineView, Status},
};

const STEP_MS: u64 = SERVICE.step_ms;
/// Steps that can still take late data.
const STEPS: usize = 32;
/// Spans are silent after so long.
const SPANS_SILENT_S: u64 = 120;
/// What is left after a step of how late spans came.
const LATE_FADES: f64 = 0.98;

/// An alert that opened or closed.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::twin::service) enum Fact {
    Open { key: CompactString, status: Status, value: f64, expected: f64 },
    Close { key: CompactString },
}

impl Fact {
    /// How many alerts there can be about the service as a whole.
    pub(in crate::twin::service) const OF_SERVICE: usize = Key::ALL.len();

    /// Whether a key is that of one operation, not of the service as a whole.
    pub(in crate::twin::service) fn is_of_operation(key: &str) -> bool {
        Key::ALL.iter().any(|ours| key.strip_prefix(ours.name()).is_some_and(|rest| rest.starts_with(' ')))
    }

    pub(super) fn of(turned: Turned, key: CompactString, status: Status) -> Self {
        match turned {
            Turned::Open { value, expected } => Self::Open { key, status, value, expected },
            Turned::Close => Self::Close { key },
        }
    }
}

/// What one step saw, per source.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    count: f64,
    errors: f64,
    seconds: f64,
}

impl Step {
    fn seen(self, key: Key, is_open: bool) -> Seen {
        let value = match key {
            Key::Rate => Some(self.count * 1e3 / num::real(STEP_MS)),
            Key::Errors => {
                let says = self.count >= REQUESTS_MIN || (is_open && self.count > 0.0);
                says.then(|| self.errors / self.count)
            }
            Key::Duration => (self.count > 0.0).then(|| self.seconds / self.count),
            Key::Level => None,
        };
        Seen { value, failures: self.errors }
    }
}

/// The baselines of one service as a whole.
#[derive(Debug)]
pub(super) struct Baselines {
    lines: [Line; 3],
    /// Number of the next step to close; 0 before the first.
    next: u64,
    open: [[Step; STEPS]; 2],
    /// When each source was last heard of.
    heard: [Timestamp; 2],
    /// How late spans came lately, in milliseconds.
    late_ms: f64,
}

impl Default for Baselines {
    fn default() -> Self {
        Self {
            lines: Key::ALL.map(Line::new),
            next: 0,
            open: [[Step::default(); STEPS]; 2],
            heard: [Timestamp::ZERO; 2],
            late_ms: 0.0,
        }
    }
}

impl Baselines {
    /// Takes a request that was served, as a span tells of it.
    pub(super) fn one(&mut self, at: Timestamp, now: Timestamp, failed: bool, seconds: f64) {
        self.late_ms = self.late_ms.max(num::real(now.unix_ms().saturating_sub(at.unix_ms())));
        self.heard[0] = self.heard[0].max(at);
        let number = at.unix_ms() / STEP_MS;
        if self.next == 0 {
            self.next = number;
        }
        self.put(0, number, 1.0, if failed { 1.0 } else { 0.0 }, seconds);
    }

    /// Takes requests that were served between two times, as metrics tell of them.
    pub(super) fn many(&mut self, from: Timestamp, to: Timestamp, count: u64, failed: bool, seconds: f64) {
        self.heard[1] = self.heard[1].max(to);
        let last = to.unix_ms() / STEP_MS;
        if self.next == 0 {
            self.next = last;
        }
        let first = (from.unix_ms() / STEP_MS).min(last).max((last + 1).saturating_sub(num::long(STEPS)));
        let share = 1.0 / num::real(last - first + 1);
        let count = num::real(count) * share;
        for number in first..=last {
            self.put(1, number, count, if failed { count } else { 0.0 }, seconds * share);
        }
    }

    fn put(&mut self, place: usize, number: u64, count: f64, errors: f64, seconds: f64) {
        if number >= self.next && number - self.next < num::long(STEPS) {
            let step = &mut self.open[place][num::at(number % num::long(STEPS))];
            step.count += count;
            step.errors += errors;
            step.seconds += seconds;
        }
    }

    /// Closes the steps that are complete and says what that opened or closed; `is_open` knows which alerts are.
    pub(super) fn close(&mut self, now: Timestamp, is_open: impl Fn(&str) -> bool, facts: &mut Vec<Fact>) {
        if self.next == 0 {
            return;
        }
        let place = self.source(now);
        let until = now.unix_ms().saturating_sub(self.late_ms(place)) / STEP_MS;
        if until <= self.next {
            return;
        }
        if until > self.next + num::long(STEPS) {
            // Silence: a gap, not zeros.
            for line in &mut self.lines {
                let key = line.key().name();
                if line.rest(&SERVICE, until - self.next, is_open(key)) {
                    facts.push(Fact::Close { key: CompactString::const_new(key) });
                }
            }
            self.open = [[Step::default(); STEPS]; 2];
            self.next = until;
            return;
        }
        let mut opened = Key::ALL.map(|key| is_open(key.name()));
        while self.next < until {
            let at = num::at(self.next % num::long(STEPS));
            let step = self.open[place][at];
            for steps in &mut self.open {
                steps[at] = Step::default();
            }
            for (line, opened) in self.lines.iter_mut().zip(&mut opened) {
                let seen = step.seen(line.key(), *opened);
                let Some(turned) = line.judge(&SERVICE, self.next * STEP_MS, seen, *opened) else { continue };
                let is_broken = line.key() == Key::Errors && seen.value >= Some(ERRORS_BROKEN);
                let status = if is_broken { Status::Unhealthy } else { Status::Degraded };
                *opened = turned != Turned::Close;
                facts.push(Fact::of(turned, CompactString::const_new(line.key().name()), status));
            }
            self.next += 1;
            self.late_ms *= LATE_FADES;
        }
    }

    /// Spans while they come: they are fresher; metrics otherwise.
    fn source(&self, now: Timestamp) -> usize {
        let [spans, metrics] = self.heard;
        usize::from(metrics > spans && now.since(spans).as_secs() > SPANS_SILENT_S)
    }

    fn late_ms(&self, place: usize) -> u64 {
        let (least, most) = SPANS_LATE_MS;
        if place == Source::Spans.index() { num::whole(2.0 * self.late_ms).clamp(least, most) } else { METRICS_LATE_MS }
    }

    pub(super) fn view(&self, now: Timestamp) -> impl Iterator<Item = BaselineView> {
        self.lines.iter().filter_map(move |line| line.view(CompactString::const_new(line.key().name()), now))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.lines.iter().for_each(|line| line.write(writer, Season::BYTES_MAX));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut baselines = Self::default();
        for line in &mut baselines.lines {
            let key = line.key();
            *line = if reader.version() < 2 { Line::read_1(key, reader)? } else { Line::read(key, reader)? };
        }
        Some(baselines)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.lines.iter().map(Line::heap_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps of requests per step, share of errors and duration; answers the facts with their step.
    fn run(steps: impl IntoIterator<Item = (u64, f64, f64)>) -> Vec<(usize, Fact)> {
        let (mut baselines, mut open, mut found) = (Baselines::default(), Vec::<CompactString>::new(), Vec::new());
        for (number, (count, errors, seconds)) in steps.into_iter().enumerate() {
            let at = Timestamp::from_unix_ms(1_700_000_000_000 + num::long(number) * STEP_MS);
            let failed = num::whole((num::real(count) * errors).round());
            (0..count).for_each(|request| baselines.one(at, at, request < failed, seconds));
            let mut facts = Vec::new();
            baselines.close(at, |key| open.iter().any(|open| open == key), &mut facts);
            for fact in facts {
                match &fact {
                    Fact::Open { key, .. } => open.push(key.clone()),
                    Fact::Close { key } => open.retain(|other| other != key),
                }
                found.push((number, fact));
            }
        }
        found
    }

    fn names(facts: &[(usize, Fact)]) -> Vec<String> {
        facts
            .iter()
            .map(|(_, fact)| match fact {
                Fact::Open { key, .. } => format!("+{key}"),
                Fact::Close { key } => format!("-{key}"),
            })
            .collect()
    }

    fn parts(parts: &[(usize, (u64, f64, f64))]) -> impl Iterator<Item = (u64, f64, f64)> {
        parts.iter().flat_map(|(steps, each)| std::iter::repeat_n(*each, *steps))
    }

    #[test]
    fn an_alert_opens_once_and_closes_once() {
        let facts = run(parts(&[(80, (50, 0.0, 0.02)), (40, (50, 0.3, 0.02)), (40, (50, 0.0, 0.02))]));
        assert_eq!(names(&facts), ["+errors", "-errors"]);
    }

    #[test]
    fn many_failures_are_an_alert_after_two_steps_and_few_after_six() {
        let after = |count| run(parts(&[(80, (count, 0.0, 0.02)), (40, (count, 0.2, 0.02))]))[0].0 - 80;
        // A step is closed when the next one is well under way.
        assert_eq!((after(100), after(20)), (2 + 1, 6 + 1));
    }

    #[test]
    fn a_slow_dependency_shows_in_the_duration() {
        let facts = run(parts(&[(80, (25, 0.0, 0.02)), (40, (25, 0.0, 0.3))]));
        assert_eq!(names(&facts), ["+duration"]);
    }

    #[test]
    fn a_wave_is_no_alarm() {
        let wave = (0..1200).map(|step: u32| (num::whole(50.0 + 30.0 * (f64::from(step) / 60.0).sin()), 0.01, 0.02));
        assert_eq!(names(&run(wave)), Vec::<String>::new());
    }

    #[test]
    fn a_loss_of_traffic_is_an_alert_and_a_surge_is_none() {
        let facts = run(parts(&[(80, (50, 0.0, 0.02)), (40, (500, 0.0, 0.02))]));
        assert_eq!(names(&facts), Vec::<String>::new());
        let facts = run(parts(&[(80, (50, 0.0, 0.02)), (40, (2, 0.0, 0.02)), (40, (50, 0.0, 0.02))]));
        assert_eq!(names(&facts), ["+rate", "-rate"]);
    }

    #[test]
    fn half_the_requests_failing_means_it_does_not_work_even_before_anything_is_usual() {
        let facts = run(parts(&[(20, (20, 0.6, 0.01))]));
        assert!(
            matches!(&facts[0].1, Fact::Open { key, status: Status::Unhealthy, .. } if key == "errors"),
            "{facts:?}"
        );
    }
}
