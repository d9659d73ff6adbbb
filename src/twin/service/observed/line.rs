//! One key series: what is usual, how far it is from that, and whether that is an alert.
//!
//! A value is compared with two expectations: an exponentially weighted mean, and what was at this time last week (or
//! yesterday, see `season`). It deviates if it is far from **both**: a daily wave is no alarm, nor is a level that came
//! to stay. An alert opens once, after several deviating steps, and closes once, after several calm ones.

use super::{
    limits::{ERRORS_ALWAYS, ERRORS_SURE, FAR, NEAR, Pace},
    num,
    page::{Reader, Writer},
    season::Season,
};
use crate::{model::Timestamp, twin::service::view::BaselineView};
use compact_str::CompactString;

/// Larger values say nothing: the square of twice as much is still a number.
const VALUE_MAX: f64 = 1e150;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Requests per second.
    Rate,
    /// The share of them that failed.
    Errors,
    /// How long they took: the mean of a whole service, 95 % of one operation.
    Duration,
    /// Any other metric. How far it is from usual is told; what that means nobody knows here, so it is no alert.
    Level,
}

impl Key {
    /// Those of requests.
    pub(super) const ALL: [Self; 3] = [Self::Rate, Self::Errors, Self::Duration];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::Duration => "duration",
            Self::Level => "series",
        }
    }

    /// Deviations too small to matter: a floor of the standard deviation.
    fn spread_min(self, expected: f64) -> f64 {
        match self {
            Self::Rate => (0.1 * expected).max(0.2),
            Self::Errors => 0.01,
            Self::Duration => (0.1 * expected).max(0.001),
            Self::Level => (0.1 * expected.abs()).max(f64::MIN_POSITIVE),
        }
    }

    /// The least value worth telling from zero, as a power of two: a request in 17 minutes, a failure in a million, 4 µs.
    const fn least(self) -> i32 {
        match self {
            Self::Rate => -10,
            Self::Errors => -20,
            Self::Duration => -18,
            // Made to fit the first value.
            Self::Level => 0,
        }
    }
}

/// What one step saw of a series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// `None` if too little was there to say: that is calm, and teaches nothing.
    pub(super) value: Option<f64>,
    /// For shares of errors: how many failed.
    pub(super) failures: f64,
}

/// What a step did to an alert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turned {
    Open { value: f64, expected: f64 },
    Close,
}

/// One key series.
#[derive(Clone, Debug)]
pub(super) struct Line {
    key: Key,
    mean: f64,
    variance: f64,
    steps: u32,
    value: f64,
    deviation: f64,
    far: u8,
    calm: u8,
    season: Season,
}

impl Line {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            mean: 0.0,
            variance: 0.0,
            steps: 0,
            value: 0.0,
            deviation: 0.0,
            far: 0,
            calm: 0,
            season: Season::new(key.least()),
        }
    }

    /// Knows what was usual before, of a series that goes on where another was.
    pub(super) fn heir(&self) -> Self {
        Self { far: 0, calm: 0, deviation: 0.0, ..self.clone() }
    }

    pub(super) const fn key(&self) -> Key {
        self.key
    }

    /// What it shows under a name; nothing before it has seen anything.
    pub(super) fn view(&self, name: CompactString, at: Timestamp) -> Option<BaselineView> {
        (self.steps > 0).then(|| BaselineView {
            key: name,
            value: self.value,
            expected: self.mean,
            seasonal: self.season.naive(at.unix_ms()),
            deviation: self.deviation,
        })
    }

    /// Judges what a step saw against what was before it, then learns from it.
    pub(super) fn judge(&mut self, pace: &Pace, at_ms: u64, seen: Seen, is_open: bool) -> Option<Turned> {
        // What is no number would be the mean for good.
        let Some(value) = seen.value.filter(|value| value.abs() <= VALUE_MAX) else {
            self.far = self.far.saturating_sub(1);
            self.calm = self.calm.saturating_add(1);
            return self.closed(pace, is_open);
        };
        let expected = self.compare(pace, at_ms, value);
        let (is_far, is_calm) = self.weigh(value, expected);
        self.learn(pace, at_ms, value, is_open || is_far);
        // So many failures at once are no accident; they count as half of what it takes.
        let is_sure = self.key == Key::Errors && seen.failures >= ERRORS_SURE && value >= ERRORS_ALWAYS;
        let evidence = if is_sure { pace.open_after.div_ceil(2) } else { 1 };
        self.far = if is_far { self.far.saturating_add(evidence) } else { 0 };
        self.calm = if is_calm { self.calm.saturating_add(1) } else { 0 };
        if !is_open && self.far >= pace.open_after {
            return Some(Turned::Open { value, expected });
        }
        self.closed(pace, is_open)
    }

    /// Takes note that nothing was seen for so many steps; whether that ends an alert. That there is no traffic is no
    /// calm where traffic is what is measured.
    pub(super) fn rest(&mut self, pace: &Pace, steps: u64, is_open: bool) -> bool {
        let mut is_over = false;
        for _ in 0..if self.key == Key::Rate { 0 } else { steps.min(u64::from(pace.close_after)) } {
            is_over |= self.judge(pace, 0, Seen::default(), is_open) == Some(Turned::Close);
        }
        is_over
    }

    fn closed(&self, pace: &Pace, is_open: bool) -> Option<Turned> {
        (is_open && self.calm >= pace.close_after).then_some(Turned::Close)
    }

    /// Notes the value and its deviation from the expectation that it is nearer to; answers that one.
    fn compare(&mut self, pace: &Pace, at_ms: u64, value: f64) -> f64 {
        let mean = self.mean;
        let is_nearer = |seasonal: &f64| (value - seasonal).abs() < (value - mean).abs();
        let expected = self.season.nearest(at_ms, value).filter(is_nearer).unwrap_or(mean);
        let spread = self.variance.sqrt().max(self.key.spread_min(expected));
        self.value = value;
        self.deviation = if self.steps >= pace.warm { (value - expected) / spread } else { 0.0 };
        expected
    }

    /// Whether a value is far from what is expected, and whether it is near.
    fn weigh(&self, value: f64, expected: f64) -> (bool, bool) {
        let deviation = self.deviation;
        match self.key {
            // A surge is what a service is for; only a loss of traffic is an alert.
            Key::Rate => {
                let is_far = deviation <= -FAR && value < 0.3 * expected && expected >= 1.0;
                (is_far, deviation > -NEAR || value >= 0.6 * expected)
            }
            Key::Errors => {
                let is_far = value >= ERRORS_ALWAYS || (deviation >= FAR && value >= 0.02);
                (is_far, value < ERRORS_ALWAYS / 2.0 && (deviation <= NEAR || value < 0.02))
            }
            Key::Duration => {
                let is_far = deviation >= FAR && value >= 1.5 * expected;
                (is_far, deviation <= NEAR || value < 1.2 * expected)
            }
            Key::Level => (false, true),
        }
    }

    fn learn(&mut self, pace: &Pace, at_ms: u64, value: f64, is_wrong: bool) {
        let is_wrong = is_wrong && self.steps > 0;
        let alpha = if is_wrong { pace.alpha_open } else { pace.alpha.max(1.0 / f64::from(self.steps + 1)) };
        let away = value - self.mean;
        self.mean += alpha * away;
        self.steps = self.steps.saturating_add(1);
        // Made to fit the first value, and anew for one that is far larger.
        let is_unfit = (self.season.is_empty() && value != 0.0) || self.season.is_beyond(value);
        if self.key == Key::Level && is_unfit {
            self.season = Season::around_value(value);
        }
        self.season.learn(at_ms, value);
        // What is wrong shall not make everything look near.
        if !is_wrong {
            self.variance = (1.0 - alpha) * (self.variance + alpha * away * away);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.season.heap_bytes()
    }

    /// Writes it, its season within about `bytes_max`.
    pub(super) fn write(&self, writer: &mut Writer, bytes_max: usize) {
        writer.real(self.mean);
        writer.real(self.variance);
        writer.number(u64::from(self.steps));
        writer.real(self.value);
        self.season.write(writer, bytes_max);
    }

    /// Reads what [`Line::write`] wrote.
    pub(super) fn read(key: Key, reader: &mut Reader<'_>) -> Option<Self> {
        let mut line = Self::new(key);
        (line.mean, line.variance) = (reader.real()?, reader.real()?);
        line.steps = num::small(reader.number()?);
        line.value = reader.real()?;
        line.season = Season::read(reader)?;
        Some(if line.is_sound() { line } else { Self::new(key) })
    }

    /// Whether all of it are numbers. What is not begins anew: nothing would ever deviate from it.
    fn is_sound(&self) -> bool {
        [self.mean, self.variance, self.value].iter().all(|number| number.is_finite()) && self.season.is_sound()
    }

    /// Reads a line of version 1: quarters of an hour of one day.
    pub(super) fn read_1(key: Key, reader: &mut Reader<'_>) -> Option<Self> {
        const QUARTERS: u64 = 96;
        const QUARTER_MS: u64 = 900_000;
        let mut line = Self::new(key);
        (line.mean, line.variance) = (reader.real()?, reader.real()?);
        line.steps = num::small(reader.number()?);
        line.value = reader.real()?;
        let (open, sum, weight) = (reader.number()?, reader.real()?, reader.real()?);
        let day = (0..QUARTERS).map(|_| reader.real3().map(f64::from)).collect::<Option<Vec<_>>>()?;
        if open > 1 << 40 {
            return None;
        }
        if weight > 0.0 {
            line.season.learn(open * QUARTER_MS, sum / weight);
        }
        let quarters: Vec<u64> = (open.saturating_sub(QUARTERS)..open).collect();
        for hour in quarters.chunk_by(|a, b| a / 4 == b / 4) {
            let known = hour.iter().map(|quarter| day[num::at(quarter % QUARTERS)]).filter(|value| !value.is_nan());
            let (sum, count) = known.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            if count > 0.0 {
                line.season.remember(hour[0] * QUARTER_MS, sum / count);
            }
        }
        Some(if line.is_sound() { line } else { Self::new(key) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::limits::OPERATION, *};

    /// A Monday at midnight.
    const START: u64 = 1_699_833_600_000;
    const DAY: u64 = 24 * 60;

    /// A service whose customers work on weekdays: a wave each day, little at the weekend, and noise.
    #[derive(Debug)]
    struct Week {
        level: f64,
        wave: f64,
        weekend: f64,
        noise: f64,
        seed: u64,
    }

    impl Week {
        fn at(&self, minute: u64) -> f64 {
            let hours = num::real(minute) / 60.0;
            let wave = 1.0 - self.wave * (std::f64::consts::TAU * hours / 24.0).cos();
            let day = if (minute / DAY) % 7 >= 5 { self.weekend } else { 1.0 };
            let random = num::real((minute ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) / 16_777_216.0;
            self.level * wave * day * (1.0 + self.noise * (2.0 * random - 1.0))
        }
    }

    /// What happens to the alert of one series over so many minutes: minute and whether it opened.
    fn run(key: Key, minutes: u64, value: impl Fn(u64) -> f64) -> (Vec<(u64, bool)>, Line) {
        let (mut line, mut turns, mut is_open) = (Line::new(key), Vec::new(), false);
        for minute in 0..minutes {
            let seen = Seen { value: Some(value(minute)), failures: 0.0 };
            if let Some(turned) = line.judge(&OPERATION, START + minute * OPERATION.step_ms, seen, is_open) {
                is_open = turned != Turned::Close;
                turns.push((minute, is_open));
            }
        }
        (turns, line)
    }

    fn week() -> impl Strategy<Value = Week> {
        (0.01_f64..2.0, 0.0_f64..0.7, 0.2_f64..1.0, 0.0_f64..0.3, any::<u64>())
            .prop_map(|(level, wave, weekend, noise, seed)| Week { level, wave, weekend, noise, seed })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn an_ordinary_week_opens_no_alert_and_a_real_step_one(week in week(), hour in 0_u64..24) {
            let step = 15 * DAY + hour * 60;
            let over = step + 90;
            let value = |minute| week.at(minute) * if (step..over).contains(&minute) { 8.0 } else { 1.0 };
            let (turns, _) = run(Key::Duration, 17 * DAY, value);
            prop_assert_eq!(turns.len(), 2, "{:?}, {} to {}", turns, step, over);
            prop_assert!(turns[0].1 && (step..step + 5).contains(&turns[0].0), "{:?} after {}", turns, step);
            prop_assert!(!turns[1].1 && (step..over + 10).contains(&turns[1].0), "{:?} after {}", turns, over);
        }
    }

    #[test]
    fn a_daily_wave_opens_no_alert_after_two_days_and_a_step_does_once() {
        let week = Week { level: 0.05, wave: 0.6, weekend: 1.0, noise: 0.1, seed: 7 };
        let step = 3 * DAY;
        let value = |minute| week.at(minute) + if minute >= step { 0.4 } else { 0.0 };
        let (turns, _) = run(Key::Duration, step, value);
        assert_eq!(turns, []);
        let (turns, _) = run(Key::Duration, step + 120, value);
        assert_eq!(turns, [(step + 2, true)]);
    }

    #[test]
    fn what_happens_every_week_is_expected_the_next() {
        // Each Sunday night for an hour, something heavy runs.
        let heavy = |minute: u64| minute % (7 * DAY) >= 6 * DAY + 120 && minute % (7 * DAY) < 6 * DAY + 180;
        let slow = |minute: u64| if heavy(minute) { 0.120 } else { 0.05 + 0.0001 * num::real(minute % 7) };
        let (turns, line) = run(Key::Duration, 28 * DAY, slow);
        let weeks: Vec<u64> = turns.iter().filter(|turn| turn.1).map(|turn| turn.0 / (7 * DAY)).collect();
        assert_eq!(weeks, [0], "{turns:?}");
        assert!(line.season.naive(START + (28 + 6) * DAY * 60_000 + 150 * 60_000).is_some());
    }

    #[test]
    fn what_is_no_number_teaches_nothing_and_is_not_read_back() {
        let wrong = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300];
        let value = |minute: u64| if minute % 50 == 49 { wrong[num::at(minute / 50 % 4)] } else { 0.05 };
        let (turns, mut line) = run(Key::Duration, 200, value);
        assert_eq!((turns, line.mean, line.value), (vec![], 0.05, 0.05));
        assert!(line.variance.abs() < 1e-9, "{line:?}");
        // As pages have it that were written while it still did.
        line.mean = f64::NEG_INFINITY;
        let mut writer = Writer::bare();
        line.write(&mut writer, usize::MAX);
        let back = Line::read(Key::Duration, &mut Reader::bare(&writer.done())).unwrap();
        assert_eq!((back.mean, back.steps), (0.0, 0), "it begins anew");
    }

    #[test]
    fn a_level_that_grows_beyond_its_season_has_another() {
        // A counter of bytes that begins with a few and ends with gigabytes.
        let (_, line) = run(Key::Level, 3 * DAY, |minute| if minute < 60 { 3.0 } else { 4e9 });
        let expected = line.season.naive(START + 3 * DAY * 60_000).unwrap();
        assert!((expected - 4e9).abs() < 0.05 * 4e9, "{expected}");
    }

    #[test]
    fn a_line_reads_back_as_it_was() {
        let week = Week { level: 5.0, wave: 0.5, weekend: 0.5, noise: 0.1, seed: 3 };
        let (_, line) = run(Key::Rate, 9 * DAY, |minute| week.at(minute));
        let mut writer = Writer::bare();
        line.write(&mut writer, usize::MAX);
        let back = Line::read(Key::Rate, &mut Reader::bare(&writer.done())).unwrap();
        let view = |line: &Line| line.view("rate".into(), Timestamp::from_unix_ms(START + 9 * DAY * 60_000));
        let (before, after) = (view(&line).unwrap(), view(&back).unwrap());
        assert_eq!((before.value, before.expected, before.seasonal), (after.value, after.expected, after.seasonal));
        assert!(before.seasonal.is_some());
    }
}
