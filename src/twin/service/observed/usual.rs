//! What is usual of a metric that is none of the requests': its mean of each minute is compared with what was before.

use compact_str::format_compact;

use super::{
    limits::OPERATION,
    line::{Key, Line, Seen},
    page::{Reader, Writer},
};
use crate::{model::Timestamp, twin::service::view::BaselineView};

/// The minute that is open, and what is usual.
#[derive(Debug)]
pub(super) struct Usual {
    minute: u64,
    sum: f64,
    weight: f64,
    line: Line,
}

impl Default for Usual {
    fn default() -> Self {
        Self { minute: 0, sum: 0.0, weight: 0.0, line: Line::new(Key::Level) }
    }
}

impl Usual {
    /// Takes a level or a rate; judges the minute before if this begins another.
    pub(super) fn note(&mut self, at: Timestamp, value: f64) {
        let minute = at.unix_ms() / OPERATION.step_ms;
        if minute > self.minute {
            if self.weight > 0.0 {
                let seen = Seen { value: Some(self.sum / self.weight), failures: 0.0 };
                // A level opens no alert, so there is nothing to tell.
                let turned = self.line.judge(&OPERATION, self.minute * OPERATION.step_ms, seen, false);
                debug_assert_eq!(turned, None);
            }
            (self.minute, self.sum, self.weight) = (minute, 0.0, 0.0);
        }
        self.sum += value;
        self.weight += 1.0;
    }

    pub(super) fn view(&self, name: &str, now: Timestamp) -> Option<BaselineView> {
        self.line.view(format_compact!("{} {name}", Key::Level.name()), now)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.line.heap_bytes()
    }

    /// Writes it, its season within about `bytes_max`; the open minute begins anew.
    pub(super) fn write(&self, writer: &mut Writer, bytes_max: usize) {
        self.line.write(writer, bytes_max);
    }

    /// Reads what [`Usual::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { line: Line::read(Key::Level, reader)?, ..Self::default() })
    }
}
