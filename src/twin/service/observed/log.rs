//! Log records: counted by severity, and the latest errors.

use std::collections::VecDeque;

use compact_str::CompactString;

use super::{
    num,
    page::{Reader, Writer},
};
use crate::{
    model::{
        Timestamp,
        telemetry::{LogSample, Severity, cut},
    },
    twin::service::view::ErrorView,
};

/// Most errors kept.
const ERRORS_MAX: usize = 16;
/// Longest message kept, in bytes; cut.
const BODY_BYTES_MAX: usize = 120;
/// Longest exception type kept, in bytes; cut.
const EXCEPTION_BYTES_MAX: usize = 32;

/// The log records of one twin.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub(super) counts: [u64; 6],
    /// Newest last.
    errors: VecDeque<Error>,
}

#[derive(Debug)]
struct Error {
    at: Timestamp,
    exception: CompactString,
    body: CompactString,
    trace_id: [u8; 16],
}

impl Logs {
    pub(super) fn take(&mut self, log: &LogSample, at: Timestamp) {
        self.counts[log.severity.index()] += 1;
        if log.severity < Severity::Error {
            return;
        }
        if self.errors.len() == ERRORS_MAX {
            self.errors.pop_front();
        }
        self.errors.push_back(Error {
            at,
            exception: cut(log.exception.as_deref().unwrap_or_default(), EXCEPTION_BYTES_MAX).into(),
            body: cut(&log.body, BODY_BYTES_MAX).into(),
            trace_id: log.trace_id.unwrap_or_default(),
        });
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.errors.capacity() * size_of::<Error>() + self.errors.iter().map(|error| error.body.len()).sum::<usize>()
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.counts.iter().for_each(|count| writer.number(*count));
        writer.number(num::long(self.errors.len()));
        for error in &self.errors {
            writer.time(error.at);
            writer.text(&error.exception, EXCEPTION_BYTES_MAX);
            writer.text(&error.body, BODY_BYTES_MAX);
            writer.bytes(&error.trace_id);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut logs = Self::default();
        for count in &mut logs.counts {
            *count = reader.number()?;
        }
        for _ in 0..reader.count(ERRORS_MAX)? {
            let (at, exception, body) = (reader.time()?, reader.text()?, reader.text()?);
            let trace_id = reader.bytes()?.try_into().ok()?;
            logs.errors.push_back(Error { at, exception, body, trace_id });
        }
        Some(logs)
    }

    /// The latest errors, newest first.
    pub(super) fn view(&self) -> Vec<ErrorView> {
        let hex = |id: &[u8; 16]| id.iter().map(|byte| format!("{byte:02x}")).collect::<CompactString>();
        let view = |error: &Error| ErrorView {
            at: error.at,
            exception: (!error.exception.is_empty()).then(|| error.exception.clone()),
            body: error.body.clone(),
            trace_id: (error.trace_id != [0; 16]).then(|| hex(&error.trace_id)),
        };
        self.errors.iter().rev().map(view).collect()
    }
}
