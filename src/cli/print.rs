//! How answers look: tables for people, JSON for programs.

use std::{
    borrow::Cow,
    io::{self, Write as _},
    time::Duration,
};

use console::{Style, measure_text_width};
use serde_json::Value;

use super::error::Error;
use crate::{
    model::{Clock as _, SystemClock, Timestamp},
    twin::service::view::{CommandState, Status},
};

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::io("standard output"))
}

/// Says something that belongs to no output: on standard error, in vain if that is gone.
pub(crate) fn aside(text: &str) {
    drop(console::Term::stderr().write_line(text));
}

/// Writes a document, readable.
pub(crate) fn document(value: &Value) -> Result<(), Error> {
    line(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// Rows under heads, each column as wide as it must be.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    heads: usize,
    widths: Vec<usize>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        let style = Style::new().dim();
        let mut table = Self { rows: Vec::new(), heads: 1, widths: Vec::new() };
        table.row(heads.iter().map(|head| style.apply_to(head).to_string()));
        table
    }

    /// A table that goes on below this one, without heads, its columns at least as wide.
    pub(crate) fn below(&self) -> Self {
        Self { rows: Vec::new(), heads: 0, widths: self.widths.clone() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        self.widths.resize(self.widths.len().max(row.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(measure_text_width(cell));
        }
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == self.heads
    }

    /// The table for a screen of this width: where it does not fit, the last column stands in lines of its own, each
    /// below its row.
    pub(crate) fn to_fit(&self, width: usize) -> String {
        let last = self.widths.len().saturating_sub(1);
        if self.widths.iter().map(|width| width + 2).sum::<usize>() <= width + 2 || last == 0 {
            return self.to_string();
        }
        let mut text = String::new();
        let heads = if self.heads > 0 { self.rows.first() } else { None };
        for row in &self.rows {
            let kept = row.get(..last.min(row.len())).unwrap_or_default();
            text.extend([&*self.padded(kept), "\n"]);
            let below =
                row.get(last).filter(|cell| !cell.is_empty() && heads.is_none_or(|heads| !std::ptr::eq(heads, row)));
            text.extend(below.map(|cell| format!("  {}\n", cut(cell, width.saturating_sub(2)))));
        }
        text
    }

    fn padded(&self, row: &[String]) -> String {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&self.widths) {
            let pad = width.saturating_sub(measure_text_width(cell));
            text.extend([cell, &*" ".repeat(pad + 2)]);
        }
        text.truncate(text.trim_end().len());
        text
    }

    pub(crate) fn print(&self) -> Result<(), Error> {
        line(self.to_string().trim_end_matches('\n'))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in &self.rows {
            writeln!(f, "{}", self.padded(row))?;
        }
        Ok(())
    }
}

/// The word for a health, in its colour.
pub(crate) fn status(status: Status) -> String {
    let style = match status {
        Status::Unknown => Style::new().dim(),
        Status::Healthy => Style::new().green(),
        Status::Degraded => Style::new().yellow(),
        Status::Unhealthy => Style::new().red().bold(),
    };
    style.apply_to(status.as_str()).to_string()
}

/// The word for where a command is, in its colour.
pub(crate) fn command_state(state: CommandState) -> String {
    let style = match state {
        CommandState::Queued | CommandState::Delivered | CommandState::Acknowledged => Style::new(),
        CommandState::Succeeded => Style::new().green(),
        CommandState::Failed | CommandState::Expired => Style::new().red(),
        CommandState::Cancelled => Style::new().dim(),
    };
    style.apply_to(state.as_str()).to_string()
}

/// A flag.
pub(crate) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// A heading.
pub(crate) fn bold(text: &str) -> String {
    Style::new().bold().apply_to(text).to_string()
}

/// How long ago that was.
pub(crate) fn ago(then: Timestamp) -> String {
    if then == Timestamp::ZERO {
        return "-".into();
    }
    format!("{} ago", span(SystemClock.now().since(then)))
}

/// A duration in its largest unit.
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A duration given in seconds, as fine as it is short.
pub(crate) fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(s) if s >= 10.0 => format!("{s:.0} s"),
        Some(s) if s >= 1.0 => format!("{s:.2} s"),
        Some(s) if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        Some(s) if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        Some(s) => format!("{:.0} µs", s * 1e6),
    }
}

/// A frequency.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 100.0 { format!("{per_second:.0}/s") } else { format!("{per_second:.1}/s") }
}

/// A share.
pub(crate) fn percent(share: f64) -> String {
    if share == 0.0 { "0 %".into() } else { format!("{:.1} %", share * 100.0) }
}

/// Text cut to a width, with a sign that it was.
pub(crate) fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

/// Text from elsewhere, such as telemetry, without what a terminal would obey: escapes, line breaks, other controls.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// A document of which each text and name is [`plain`].
pub(crate) fn plain_document(value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => Value::String(plain(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(plain_document).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (plain(&name).into_owned(), plain_document(value))).collect()
        }
    }
}

/// A member of an object as plain text, or a dash.
pub(crate) fn member(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => plain(text).into_owned(),
        Some(other) => plain(&other.to_string()).into_owned(),
    }
}

/// A member of an object as a time, told by its distance.
pub(crate) fn member_ago(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_u64).map_or_else(|| "-".into(), |ms| ago(Timestamp::from_unix_ms(ms)))
}

/// The same of a time that may be to come.
pub(crate) fn member_when(value: &Value, name: &str) -> String {
    let then = value.get(name).and_then(Value::as_u64).map(Timestamp::from_unix_ms);
    then.map_or_else(|| "-".into(), |then| when(then, SystemClock.now()))
}

/// How long ago a time was, or how long it is until then.
pub(crate) fn when(then: Timestamp, now: Timestamp) -> String {
    if then <= now { format!("{} ago", span(now.since(then))) } else { format!("in {}", span(then.since(now))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["wöchentlich".into(), "1".into()]);
        table.row(["x".into(), "22".into()]);
        let text = console::strip_ansi_codes(&table.to_string()).into_owned();
        assert_eq!(text, "A            B\nwöchentlich  1\nx            22\n");
        let mut below = table.below();
        assert!(below.is_empty() && !table.is_empty());
        below.row(["y".into(), "3".into()]);
        assert_eq!(console::strip_ansi_codes(&below.to_string()), "y            3\n");
    }

    #[test]
    fn what_does_not_fit_the_width_stands_below_its_row() {
        let mut table = Table::new(&["A", "WHY"]);
        table.row(["unwell".into(), "errors POST /orders (2.0.0)".into()]);
        table.row(["well".into(), String::new()]);
        let shown = |width| console::strip_ansi_codes(&table.to_fit(width)).into_owned();
        assert_eq!(shown(35), console::strip_ansi_codes(&table.to_string()));
        assert_eq!(shown(34), "A\nunwell\n  errors POST /orders (2.0.0)\nwell\n");
        assert_eq!(shown(16), "A\nunwell\n  errors POST /…\nwell\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_taken_out_of_what_others_wrote() {
        let wrote = serde_json::json!({"a\u{1b}[2J": ["\u{9b}31m", {"b": "x\r\ny\u{7f}"}], "n": 1, "ö": "ö → 汉"});
        let plain = serde_json::json!({"a\u{fffd}[2J": ["\u{fffd}31m", {"b": "x\u{fffd}\u{fffd}y\u{fffd}"}], "n": 1, "ö": "ö → 汉"});
        assert_eq!(plain_document(wrote.clone()), plain);
        assert_eq!(member(&serde_json::json!({"a": "\u{1b}]0;title\u{7}"}), "a"), "\u{fffd}]0;title\u{fffd}");
        assert!(!member(&wrote, "a\u{1b}[2J").contains(char::is_control), "a list is text, too");
    }

    #[test]
    fn durations_are_as_fine_as_they_are_short() {
        let shown = [Some(0.000_25), Some(0.0042), Some(0.25), Some(1.5), Some(75.0), None].map(seconds);
        assert_eq!(shown, ["250 µs", "4.2 ms", "250 ms", "1.50 s", "75 s", "-"]);
        assert_eq!([59, 600, 10_000, 400_000].map(|s| span(Duration::from_secs(s))), ["59s", "10m", "2h", "4d"]);
    }
}
