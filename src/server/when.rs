//! Points in time as RFC 3339 writes them.

use crate::model::Timestamp;

const DAY_MS: u64 = 86_400_000;
/// Beyond it a year has no four digits.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// Reads `2026-01-31T12:00:00Z`, with a fraction or an offset if there is one; or milliseconds since 1970.
pub fn parse(text: &str) -> Option<Timestamp> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let ms = text.parse().ok().filter(|ms| *ms < YEAR_10000_MS)?;
        return Some(Timestamp::from_unix_ms(ms));
    }
    let number = |from: usize, digits: usize| -> Option<u64> {
        let part = text.get(from..from + digits)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let is = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|b| allowed.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        ms = format!("{:0<3}", fraction.get(..digits.clamp(1, 3))?).parse().ok()?;
        rest = fraction.get(digits..)?;
    }
    let since_midnight = (hour * 3600 + minute * 60 + second) * 1000 + ms;
    let local = days_since_1970(year, month, day) * DAY_MS + since_midnight;
    let offset_ms = |text: &str| {
        let (hours, minutes) = text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
        let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours < 24 && minutes < 60).then_some((hours * 60 + minutes) * 60_000)
    };
    let utc = match rest.as_bytes().first()? {
        b'Z' | b'z' if rest.len() == 1 => local,
        b'+' => local.checked_sub(offset_ms(&rest[1..])?)?,
        b'-' => local + offset_ms(&rest[1..])?,
        _ => return None,
    };
    (utc < YEAR_10000_MS).then(|| Timestamp::from_unix_ms(utc))
}

/// Writes a time in UTC, with milliseconds.
pub fn format(time: Timestamp) -> String {
    time.to_string()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|month| days_in(year, month)).sum::<u64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T12:34:56.789Z", 951_827_696_789),
            ("2024-12-31T23:59:59.999Z", 1_735_689_599_999),
            ("2026-11-23T01:24:02.000Z", 1_795_397_042_000),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400_000),
        ] {
            assert_eq!(parse(text), Some(Timestamp::from_unix_ms(ms)), "{text}");
            assert_eq!(format(Timestamp::from_unix_ms(ms)), text);
        }
        for day in 0..60_000 {
            let time = Timestamp::from_unix_ms(day * DAY_MS + 5);
            assert_eq!(parse(&format(time)), Some(time));
        }
    }

    #[test]
    fn offsets_fractions_and_milliseconds_are_understood_and_nonsense_is_not() {
        let noon = parse("2026-01-31T12:00:00Z");
        assert_eq!(parse("2026-01-31T14:30:00.0+02:30"), noon);
        assert_eq!(parse("2026-01-31T11:00:00-01:00"), noon);
        assert_eq!(parse("1769860800000"), noon);
        for text in
            ["", "now", "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Zx", "ü"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
