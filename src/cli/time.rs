//! Times as people write them on a command line.

use std::time::Duration;

use crate::model::{Clock as _, SystemClock, Timestamp};

/// Reads `90s`, `30m`, `24h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.char_indices().last().and_then(|(at, unit)| {
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        text[..at].parse::<u64>().ok()?.checked_mul(seconds)
    });
    parsed.map(Duration::from_secs).ok_or_else(|| "write a number and s, m, h or d, such as 24h".to_owned())
}

/// Reads how long it is until then, such as `1h`, or the time itself in RFC 3339.
pub(super) fn deadline(text: &str) -> Result<Timestamp, String> {
    match duration(text) {
        Ok(after) => Ok(SystemClock.now().after(after)),
        Err(wrong) => text.parse().map_err(|error| format!("{wrong}, or a time: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit_or_rfc_3339() {
        assert_eq!(
            ["90s", "30m", "24h", "7d"].map(|text| duration(text).unwrap().as_secs()),
            [90, 1800, 86_400, 604_800]
        );
        for wrong in ["", "h", "1", "1.5h", "-1h", "1w", "ü", "99999999999999999999d", "9999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(deadline("2026-01-31T12:00:00Z"), Ok(Timestamp::from_unix_ms(1_769_860_800_000)));
        assert!(deadline("1h").unwrap() > SystemClock.now());
        assert!(deadline("soon").is_err());
    }
}
