//! What an operator chooses about service twins. One choice a process, made before its first twin; everything else is a
//! bound of this build ([`super::limits`]).

use std::{fmt, str::FromStr, sync::OnceLock, time::Duration};

use serde::{Deserialize, Serialize};

use super::{access::Profile, limits};

/// Most series that may be chosen: what the pages hold, one place kept for `_other`.
pub const SERIES_MAX: usize = 95;
/// Most operation–version pairs that may be chosen: what two pages hold, one place kept for `_other`.
pub const PAIRS_MAX: usize = 48;
/// Bins of all resolutions together, those of the two coarser ones counted twice since they keep extremes: what eight
/// series in one page leave for each.
const BINS_WEIGHT_MAX: usize = 60 + 2 * (96 + 90);
/// Longest time that may be chosen.
const TIME_S_MAX: u64 = 30 * 24 * 60 * 60;

static CHOSEN: OnceLock<Settings> = OnceLock::new();

/// What an operator chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most series of a twin; the rest is counted in the series `_other`.
    pub series_max: usize,
    /// Most pairs of operation and version of a twin; the rest is counted in the operation `_other`.
    pub operations_max: usize,
    /// How a series is kept, finest first.
    pub resolutions: [Resolution; 3],
    /// An instance is lost after so much silence, in seconds.
    pub presence_timeout_s: u64,
    /// A lost instance is forgotten after so long, in seconds.
    pub forget_after_s: u64,
    /// How long a command may wait to be collected, if its poster does not say, in seconds.
    pub delivery_timeout_s: u64,
    /// How long a command may take once collected, if its poster does not say, in seconds.
    pub execution_timeout_s: u64,
    /// The grants of a service that was given no profile of its own.
    pub profile: Profile,
    /// Capability requests that a twin takes within a second.
    pub requests_per_s: u32,
    /// Bytes that a twin keeps in its state stores, keys and values together.
    pub state_bytes_max: u64,
    /// Keys that a twin keeps in its state stores.
    pub state_keys_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            series_max: 32,
            operations_max: 24,
            resolutions: Resolution::DEFAULT,
            presence_timeout_s: 60,
            forget_after_s: 15 * 60,
            delivery_timeout_s: 60 * 60,
            execution_timeout_s: 60 * 60,
            profile: Profile::Standard,
            requests_per_s: 20_000,
            state_bytes_max: 256 << 20,
            state_keys_max: 1_000_000,
        }
    }
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A number beyond its bounds.
    #[error("service.{name} is {given}; it must be between {least} and {most}")]
    Bounds {
        /// Which.
        name: &'static str,
        /// What was given.
        given: u64,
        /// The least it can be.
        least: u64,
        /// The most it can be.
        most: u64,
    },
    /// Resolutions that are no resolutions.
    #[error(
        "service.resolutions must have at least one bin of at least a second each and grow coarser, and their bins, those of \
         the second and third counted twice, be at most {BINS_WEIGHT_MAX} together"
    )]
    Resolutions,
    /// Twins of this process follow others already.
    #[error("this process has service twins with other settings already; they are chosen once a process")]
    Chosen,
}

impl Settings {
    /// Refuses what could not work.
    pub fn check(&self) -> Result<(), Unusable> {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let rows = [
            ("series_max", wide(self.series_max), wide(SERIES_MAX)),
            ("operations_max", wide(self.operations_max), wide(PAIRS_MAX)),
            ("presence_timeout_s", self.presence_timeout_s, TIME_S_MAX),
            ("forget_after_s", self.forget_after_s, TIME_S_MAX),
            ("delivery_timeout_s", self.delivery_timeout_s, limits::TIMEOUT_MAX.as_secs()),
            ("execution_timeout_s", self.execution_timeout_s, limits::TIMEOUT_MAX.as_secs()),
        ];
        if let Some((name, given, most)) = rows.into_iter().find(|(_, given, most)| !(1..=*most).contains(given)) {
            return Err(Unusable::Bounds { name, given, least: 1, most });
        }
        let [fine, middle, coarse] = self.resolutions;
        let weight = usize::from(fine.bins) + 2 * (usize::from(middle.bins) + usize::from(coarse.bins));
        let is_empty = self.resolutions.iter().any(|each| each.bins == 0 || each.width_s == 0);
        let is_ordered = fine.width_s < middle.width_s && middle.width_s < coarse.width_s;
        if !is_empty && is_ordered && weight <= BINS_WEIGHT_MAX { Ok(()) } else { Err(Unusable::Resolutions) }
    }

    /// Chooses for this process. The same choice may be made again.
    pub fn choose(self) -> Result<(), Unusable> {
        self.check()?;
        let chosen = CHOSEN.get_or_init(|| self.clone());
        if *chosen == self { Ok(()) } else { Err(Unusable::Chosen) }
    }

    /// What was chosen; the first look chooses the defaults.
    pub fn chosen() -> &'static Self {
        CHOSEN.get_or_init(Self::default)
    }

    pub(super) fn presence_timeout(&self) -> Duration {
        Duration::from_secs(self.presence_timeout_s)
    }

    pub(super) fn forget_after(&self) -> Duration {
        Duration::from_secs(self.forget_after_s)
    }

    pub(super) fn delivery_timeout(&self) -> Duration {
        Duration::from_secs(self.delivery_timeout_s)
    }

    pub(super) fn execution_timeout(&self) -> Duration {
        Duration::from_secs(self.execution_timeout_s)
    }
}

/// How many bins of which width; written `60 x 10s`, with `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resolution {
    /// How many are kept.
    pub bins: u16,
    /// How much time each covers, in seconds.
    pub width_s: u32,
}

const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

impl Resolution {
    /// 10 s for 10 minutes, 15 min for a day, a day for 90 days.
    pub const DEFAULT: [Self; 3] =
        [Self { bins: 60, width_s: 10 }, Self { bins: 96, width_s: 15 * 60 }, Self { bins: 90, width_s: 24 * 60 * 60 }];

    /// Width of a bin in milliseconds, and how many there are.
    pub(super) fn shape(self) -> (u64, usize) {
        (u64::from(self.width_s) * 1000, usize::from(self.bins))
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) =
            UNITS.into_iter().find(|(_, unit)| self.width_s.is_multiple_of(*unit)).unwrap_or(('s', 1));
        write!(f, "{} x {}{unit}", self.bins, self.width_s / seconds)
    }
}

impl FromStr for Resolution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (bins, width) = text.split_once('x')?;
            let (number, unit) = width.trim().split_at_checked(width.trim().len().checked_sub(1)?)?;
            let (_, seconds) = UNITS.into_iter().find(|(name, _)| unit == name.to_string())?;
            let bins = bins.trim().parse().ok().filter(|bins| *bins > 0)?;
            let width_s = number.trim().parse::<u32>().ok()?.checked_mul(seconds).filter(|width| *width > 0)?;
            Some(Self { bins, width_s })
        };
        read().ok_or_else(|| format!("'{text}' is no resolution; write bins x width, such as '60 x 10s' (s, m, h, d)"))
    }
}

impl TryFrom<String> for Resolution {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Resolution> for String {
    fn from(resolution: Resolution) -> Self {
        resolution.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_reads_as_it_is_written() {
        for text in ["60 x 10s", "96 x 15m", "90 x 1d", "5 x 90s", "24 x 1h"] {
            assert_eq!(text.parse::<Resolution>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "60", "x", "0 x 1s", "1 x 0s", "9 x 9y", "60 x", "-1 x 1s", "99999 x 1s", "1 x 99999d", "1 x é"]
        {
            assert!(wrong.parse::<Resolution>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_could_not_work_is_refused_by_name() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert!(with(|settings| settings.series_max = 96).unwrap_err().contains("service.series_max is 96"));
        assert!(with(|settings| settings.presence_timeout_s = 0).unwrap_err().contains("presence_timeout_s"));
        assert!(with(|settings| settings.resolutions.reverse()).unwrap_err().contains("coarser"));
        assert!(with(|settings| settings.resolutions[0].bins = 0).unwrap_err().contains("at least one bin"));
        assert!(with(|settings| settings.resolutions[0].width_s = 0).unwrap_err().contains("at least a second"));
        assert!(with(|settings| settings.resolutions[0].bins = 61).unwrap_err().contains("at most 432"));
    }

    #[test]
    fn settings_are_chosen_once() {
        let other = Settings { series_max: 1, ..Settings::default() };
        assert_eq!(Settings::chosen(), &Settings::default());
        assert_eq!(Settings::default().choose(), Ok(()));
        assert_eq!(other.choose(), Err(Unusable::Chosen));
    }
}
