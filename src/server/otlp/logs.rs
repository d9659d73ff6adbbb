//! Log records.

use std::borrow::Cow;

use compact_str::CompactString;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::LogRecord,
};

use super::{Filler, Translated, covered, text, time};
use crate::model::{
    ServiceId,
    telemetry::{LOG_BODY_BYTES_MAX, LogSample, NAME_BYTES_MAX, Severity, cut},
};

/// Translates log records.
pub fn logs(request: &ExportLogsServiceRequest, covers: &dyn Fn(&ServiceId) -> Result<(), String>) -> Translated {
    let mut out = Translated::default();
    for from in &request.resource_logs {
        let items = from.scope_logs.iter().map(|scope| scope.log_records.len()).sum();
        let Some(origin) = covered(from.resource.as_ref(), items, &mut out.refused, covers) else { continue };
        let mut filler = Filler::new(origin, &mut out.batches);
        for record in from.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            filler.batch(0).0.logs.push(sample(record));
        }
    }
    out
}

fn sample(record: &LogRecord) -> LogSample {
    let severity = severity(record);
    let at = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
    let exception = record.attributes.iter().find(|attribute| attribute.key == "exception.type").and_then(text);
    LogSample {
        time: time(at),
        severity,
        body: if severity < Severity::Error {
            CompactString::default()
        } else {
            CompactString::new(cut(&body(record), LOG_BODY_BYTES_MAX))
        },
        exception: exception.map(|name| CompactString::new(cut(name, NAME_BYTES_MAX))),
        trace_id: record.trace_id.as_slice().try_into().ok().filter(|id| *id != [0; 16]),
    }
}

/// What loggers call their severities.
const SPELLINGS: [(&str, Severity); 9] = [
    ("trace", Severity::Trace),
    ("debug", Severity::Debug),
    ("info", Severity::Info),
    ("warn", Severity::Warn),
    ("warning", Severity::Warn),
    ("error", Severity::Error),
    ("err", Severity::Error),
    ("fatal", Severity::Fatal),
    ("critical", Severity::Fatal),
];

/// The number decides; without one, the text in its usual spellings.
fn severity(record: &LogRecord) -> Severity {
    if record.severity_number != 0 {
        return Severity::from_number(record.severity_number);
    }
    let spelled = |(name, _): &&(&str, Severity)| record.severity_text.eq_ignore_ascii_case(name);
    SPELLINGS.iter().find(spelled).map_or(Severity::default(), |(_, severity)| *severity)
}

fn body(record: &LogRecord) -> Cow<'_, str> {
    let message = || record.attributes.iter().find(|attribute| attribute.key == "exception.message").and_then(text);
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text.into(),
        Some(Value::KvlistValue(list)) => {
            let named = list.values.iter().find(|pair| matches!(pair.key.as_str(), "message" | "msg")).and_then(text);
            named.map_or_else(|| in_json(record.body.as_ref()).into(), Cow::Borrowed)
        }
        Some(
            Value::BoolValue(_)
            | Value::IntValue(_)
            | Value::DoubleValue(_)
            | Value::ArrayValue(_)
            | Value::BytesValue(_)
            | Value::StringValueStrindex(_),
        ) => in_json(record.body.as_ref()).into(),
        None => message().unwrap_or(&record.event_name).into(),
    }
}

fn in_json(body: Option<&AnyValue>) -> String {
    serde_json::to_string(&body).unwrap_or_default()
}
