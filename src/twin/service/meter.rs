//! How many capability requests a twin takes within a second.

use super::Settings;
use crate::{model::Timestamp, twin::Rejection};

/// Counts requests of the present second; gone with the activation.
#[derive(Debug, Default)]
pub(super) struct Meter {
    second: u64,
    used: u32,
}

impl Meter {
    /// Refuses a request above the rate that was chosen.
    pub(super) fn allows(&self, now: Timestamp) -> Result<(), Rejection> {
        let per_s = Settings::chosen().requests_per_s;
        if self.second == now.unix_ms() / 1000 && self.used >= per_s {
            return Err(Rejection::Throttled { limit: "service.requests_per_s".into(), per_s });
        }
        Ok(())
    }

    /// Counts a request that had its turn.
    pub(super) fn count(&mut self, now: Timestamp) {
        let second = now.unix_ms() / 1000;
        if self.second == second {
            self.used = self.used.saturating_add(1);
        } else {
            *self = Self { second, used: 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_above_the_rate_are_refused_until_the_second_is_over() {
        let (mut meter, now) = (Meter::default(), Timestamp::from_unix_ms(5_000));
        for _ in 0..Settings::chosen().requests_per_s {
            assert_eq!(meter.allows(now), Ok(()));
            meter.count(now);
        }
        assert!(matches!(meter.allows(now), Err(Rejection::Throttled { .. })));
        assert_eq!(meter.allows(Timestamp::from_unix_ms(6_000)), Ok(()));
    }
}
