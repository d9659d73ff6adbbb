//! What is expected of the service as a whole, and when it deviates.
//!
//! Three key series (rate, share of errors, mean duration of the requests served) move in steps of ten seconds. Each has
//! an exponentially weighted mean and variance, and the mean of the same quarter of an hour yesterday (seasonal-naive).
//! A value deviates if it is far from **both**: a daily wave is no alarm, nor is a level that came to stay. An alert
//! opens once, after several deviating steps, and closes after several calm ones.

use compact_str::CompactString;

use super::{
    num,
    operation::Source,
    page::{Reader, Writer},
};
use crate::{
    model::Timestamp,
    twin::service::view::{BaselineView, Status},
};

/// Length of a step.
const STEP_MS: u64 = 10_000;
/// Steps that can still take late data.
const STEPS: usize = 16;
/// How late spans may come, and metrics.
const LATE_MS: [u64; 2] = [15_000, 75_000];
/// Quarters of an hour in a day.
const SLOTS: usize = 96;
const SLOT_MS: u64 = 900_000;
/// Weight of a new value, once warm.
const ALPHA: f64 = 0.02;
/// Weight while an alert is open: the level may have come to stay.
const ALPHA_OPEN: f64 = 0.002;
/// Steps before anything deviates.
const WARM: u32 = 12;
/// Standard deviations that make a deviation, and those that end it.
const FAR: f64 = 4.0;
const NEAR: f64 = 2.0;
/// Deviating steps that open an alert, calm ones that close it.
const OPEN_AFTER: u8 = 3;
const CLOSE_AFTER: u8 = 6;
/// Share of errors that is an alert whatever was usual, and the share at which the service does not work.
const ERRORS_ALWAYS: f64 = 0.1;
const ERRORS_BROKEN: f64 = 0.5;
/// Fewest requests in a step whose share of errors says anything.
const REQUESTS_MIN: f64 = 5.0;

/// The key series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Rate,
    Errors,
    Duration,
}

impl Key {
    const ALL: [Self; 3] = [Self::Rate, Self::Errors, Self::Duration];

    /// Name of the series and of its alert.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::Duration => "duration",
        }
    }

    /// Deviations too small to matter: a floor of the standard deviation.
    fn spread_min(self, mean: f64) -> f64 {
        match self {
            Self::Rate => (0.1 * mean).max(0.2),
            Self::Errors => 0.01,
            Self::Duration => (0.1 * mean).max(0.001),
        }
    }
}

/// An alert that opened or closed.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::twin::service) enum Fact {
    Open { key: &'static str, status: Status, value: f64, expected: f64 },
    Close { key: &'static str },
}

/// What one step saw, per source.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    count: f64,
    errors: f64,
    seconds: f64,
}

/// One key series.
#[derive(Debug)]
struct Line {
    mean: f64,
    variance: f64,
    steps: u32,
    value: f64,
    deviation: f64,
    far: u8,
    calm: u8,
    /// Mean per quarter of an hour, of the last day; NaN where nothing was.
    day: Box<[f32; SLOTS]>,
    slot: (u64, f64, f64),
}

impl Default for Line {
    fn default() -> Self {
        Self {
            mean: 0.0,
            variance: 0.0,
            steps: 0,
            value: 0.0,
            deviation: 0.0,
            far: 0,
            calm: 0,
            day: Box::new([f32::NAN; SLOTS]),
            slot: (0, 0.0, 0.0),
        }
    }
}

impl Line {
    fn yesterday(&self, at: u64) -> Option<f64> {
        let value = self.day[num::at((at / SLOT_MS) % num::long(SLOTS))];
        (!value.is_nan()).then(|| f64::from(value))
    }

    /// Judges a value against what was before it, then learns from it. Says how far it is, and in which direction.
    fn step(&mut self, key: Key, at: u64, value: f64, is_open: bool) -> f64 {
        let spread = self.variance.sqrt().max(key.spread_min(self.mean));
        let usual = (value - self.mean) / spread;
        let seasonal = self.yesterday(at).map(|seasonal| (value - seasonal) / spread);
        let deviation = match seasonal {
            Some(seasonal) if seasonal.abs() < usual.abs() => seasonal,
            Some(_) | None => usual,
        };
        let alpha = if is_open { ALPHA_OPEN } else { ALPHA.max(1.0 / f64::from(self.steps + 1)) };
        let away = value - self.mean;
        self.mean += alpha * away;
        self.variance = (1.0 - alpha) * (self.variance + alpha * away * away);
        self.steps = self.steps.saturating_add(1);
        self.learn_season(at, value);
        (self.value, self.deviation) = (value, if self.steps > WARM { deviation } else { 0.0 });
        self.deviation
    }

    fn learn_season(&mut self, at: u64, value: f64) {
        let number = at / SLOT_MS;
        if number != self.slot.0 {
            let (last, sum, weight) = self.slot;
            if weight > 0.0 {
                self.day[num::at(last % num::long(SLOTS))] = num::short(sum / weight);
            }
            self.slot = (number, 0.0, 0.0);
        }
        self.slot.1 += value;
        self.slot.2 += 1.0;
    }
}

/// The baselines of one twin.
#[derive(Debug)]
pub(super) struct Baselines {
    lines: [Line; 3],
    /// Number of the next step to close; 0 before the first.
    next: u64,
    open: [[Step; STEPS]; 2],
    /// When each source was last heard of.
    heard: [Timestamp; 2],
}

impl Default for Baselines {
    fn default() -> Self {
        Self {
            lines: std::array::from_fn(|_| Line::default()),
            next: 0,
            open: [[Step::default(); STEPS]; 2],
            heard: [Timestamp::ZERO; 2],
        }
    }
}

impl Baselines {
    /// Takes requests that were served.
    pub(super) fn take(
        &mut self,
        source: Source,
        from: Timestamp,
        to: Timestamp,
        count: u64,
        failed: bool,
        seconds: f64,
    ) {
        let place = match source {
            Source::Spans => 0,
            Source::Metrics => 1,
        };
        self.heard[place] = self.heard[place].max(to);
        let last = to.unix_ms() / STEP_MS;
        if self.next == 0 {
            self.next = last;
        }
        let end = self.next + num::long(STEPS);
        let first = (from.unix_ms() / STEP_MS).min(last).max((last + 1).saturating_sub(num::long(STEPS)));
        let share = 1.0 / num::real(last - first + 1);
        for number in (first..=last).filter(|number| (self.next..end).contains(number)) {
            let step = &mut self.open[place][num::at(number % num::long(STEPS))];
            step.count += num::real(count) * share;
            step.errors += if failed { num::real(count) * share } else { 0.0 };
            step.seconds += seconds * share;
        }
    }

    /// Closes the steps that are complete and says what that opened or closed; `is_open` knows which alerts are.
    pub(super) fn close(&mut self, now: Timestamp, is_open: impl Fn(&str) -> bool) -> Vec<Fact> {
        let mut facts = Vec::new();
        if self.next == 0 {
            return facts;
        }
        let place = self.source(now);
        let until = now.unix_ms().saturating_sub(LATE_MS[place]) / STEP_MS;
        let mut opened = Key::ALL.map(|key| is_open(key.name()));
        if until > self.next + num::long(STEPS) {
            // Silence: a gap, not zeros.
            self.open = [[Step::default(); STEPS]; 2];
            self.next = until;
            return facts;
        }
        while self.next < until {
            let at = num::at(self.next % num::long(STEPS));
            let step = self.open[place][at];
            for steps in &mut self.open {
                steps[at] = Step::default();
            }
            for (key, opened) in Key::ALL.into_iter().zip(&mut opened) {
                let line = &mut self.lines[key.index()];
                if let Some(fact) = line.judge(key, self.next * STEP_MS, step, *opened) {
                    *opened = matches!(fact, Fact::Open { .. });
                    facts.push(fact);
                }
            }
            self.next += 1;
        }
        facts
    }

    /// Spans while they come: they are fresher; metrics otherwise.
    fn source(&self, now: Timestamp) -> usize {
        let [spans, metrics] = self.heard;
        usize::from(metrics > spans && now.since(spans).as_secs() > 120)
    }

    pub(super) fn view(&self) -> Vec<BaselineView> {
        let known = Key::ALL.into_iter().zip(&self.lines).filter(|(_, line)| line.steps > 0);
        known
            .map(|(key, line)| BaselineView {
                key: CompactString::const_new(key.name()),
                value: line.value,
                expected: line.mean,
                seasonal: line.yesterday(self.next * STEP_MS),
                deviation: line.deviation,
            })
            .collect()
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        for line in &self.lines {
            writer.real(line.mean);
            writer.real(line.variance);
            writer.number(u64::from(line.steps));
            writer.real(line.value);
            writer.number(line.slot.0);
            writer.real(line.slot.1);
            writer.real(line.slot.2);
            line.day.iter().for_each(|value| writer.real3(*value));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut baselines = Self::default();
        for line in &mut baselines.lines {
            (line.mean, line.variance) = (reader.real()?, reader.real()?);
            line.steps = num::small(reader.number()?);
            line.value = reader.real()?;
            line.slot = (reader.number()?, reader.real()?, reader.real()?);
            for value in line.day.iter_mut() {
                *value = reader.real3()?;
            }
        }
        Some(baselines)
    }

    pub(super) fn heap_bytes() -> usize {
        Key::ALL.len() * size_of::<[f32; SLOTS]>()
    }
}

impl Key {
    const fn index(self) -> usize {
        match self {
            Self::Rate => 0,
            Self::Errors => 1,
            Self::Duration => 2,
        }
    }
}

impl Line {
    fn judge(&mut self, key: Key, at: u64, step: Step, is_open: bool) -> Option<Fact> {
        let expected = self.mean;
        let value = match key {
            Key::Rate => step.count * 1e3 / num::real(STEP_MS),
            Key::Errors if step.count >= REQUESTS_MIN || (is_open && step.count > 0.0) => step.errors / step.count,
            Key::Duration if step.count > 0.0 => step.seconds / step.count,
            Key::Errors | Key::Duration => return None,
        };
        let deviation = self.step(key, at, value, is_open);
        let is_far = match key {
            // A surge is what a service is for; only a loss of traffic is an alert.
            Key::Rate => deviation <= -FAR && value < 0.3 * expected && expected >= 0.5,
            Key::Errors => value >= ERRORS_ALWAYS || (deviation >= FAR && value >= 0.02),
            Key::Duration => deviation >= FAR && value >= 1.5 * expected,
        };
        let is_calm = match key {
            Key::Rate => deviation > -NEAR || value >= 0.6 * expected,
            Key::Errors => value < ERRORS_ALWAYS / 2.0 && (deviation <= NEAR || value < 0.02),
            Key::Duration => deviation <= NEAR || value < 1.2 * expected,
        };
        self.far = if is_far { self.far.saturating_add(1) } else { 0 };
        self.calm = if is_calm { self.calm.saturating_add(1) } else { 0 };
        let key_name = key.name();
        if !is_open && self.far >= OPEN_AFTER {
            let is_broken = key == Key::Errors && value >= ERRORS_BROKEN;
            let status = if is_broken { Status::Unhealthy } else { Status::Degraded };
            return Some(Fact::Open { key: key_name, status, value, expected });
        }
        (is_open && self.calm >= CLOSE_AFTER).then_some(Fact::Close { key: key_name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps of requests per step, share of errors and duration; answers the facts with their step.
    fn run(steps: &[(u64, f64, f64)]) -> Vec<(usize, Fact)> {
        let (mut baselines, mut open, mut facts) = (Baselines::default(), Vec::new(), Vec::new());
        for (number, (count, errors, seconds)) in steps.iter().enumerate() {
            let at = Timestamp::from_unix_ms(1_700_000_000_000 + num::long(number) * STEP_MS);
            let failed = num::whole((num::real(*count) * errors).round());
            baselines.take(Source::Spans, at, at, failed, true, num::real(failed) * seconds);
            baselines.take(Source::Spans, at, at, count - failed, false, num::real(count - failed) * seconds);
            for fact in baselines.close(at, |key| open.contains(&key)) {
                match &fact {
                    Fact::Open { key, .. } => open.push(*key),
                    Fact::Close { key } => open.retain(|other| other != key),
                }
                facts.push((number, fact));
            }
        }
        facts
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

    #[test]
    fn an_alert_opens_once_and_closes_once() {
        let mut steps = vec![(100, 0.0, 0.02); 40];
        steps.extend([(100, 0.3, 0.02); 20]);
        steps.extend([(100, 0.0, 0.02); 20]);
        assert_eq!(names(&run(&steps)), ["+errors", "-errors"]);
    }

    #[test]
    fn a_slow_dependency_shows_in_the_duration() {
        let mut steps = vec![(50, 0.0, 0.02); 40];
        steps.extend([(50, 0.0, 0.3); 20]);
        assert_eq!(names(&run(&steps)), ["+duration"]);
    }

    #[test]
    fn a_wave_is_no_alarm_and_silence_is_a_gap() {
        let wave = (0..600).map(|step: u32| (num::whole(100.0 + 60.0 * (f64::from(step) / 30.0).sin()), 0.01, 0.02));
        assert_eq!(names(&run(&wave.collect::<Vec<_>>())), Vec::<String>::new());
    }

    #[test]
    fn half_the_requests_failing_means_it_does_not_work_even_before_anything_is_usual() {
        let facts = run(&[(20, 0.6, 0.01); 10]);
        assert!(matches!(facts[0].1, Fact::Open { key: "errors", status: Status::Unhealthy, .. }), "{facts:?}");
    }
}
