//! OTLP over HTTP (OTLP specification 1.5, "OTLP/HTTP"): protobuf or JSON, plain or gzip.

use std::{io::Read, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use flate2::read::MultiGzDecoder;
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use serde::{Serialize, de::DeserializeOwned};

use super::caller::{Caller, body, essence, text};
use crate::{
    metrics::Signal,
    model::ServiceId,
    server::{
        Accepted, Server,
        otlp::{self, Translated},
        problem::{Code, Problem},
    },
};

/// Bodies above this are unpacked and decoded off the threads that serve requests.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// Takes spans.
pub(super) async fn traces(
    State(server): State<Arc<Server>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let respond = |accepted: Accepted| ExportTraceServiceResponse {
        partial_success: partial(&accepted, |rejected_spans, error_message| ExportTracePartialSuccess {
            rejected_spans,
            error_message,
        }),
    };
    take::<ExportTraceServiceRequest, _>(&server, &caller, request, Signal::Traces, otlp::spans, respond).await
}

/// Takes metric points.
pub(super) async fn metrics(
    State(server): State<Arc<Server>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let respond = |accepted: Accepted| ExportMetricsServiceResponse {
        partial_success: partial(&accepted, |rejected_data_points, error_message| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message,
        }),
    };
    take::<ExportMetricsServiceRequest, _>(&server, &caller, request, Signal::Metrics, otlp::metrics, respond).await
}

/// Takes log records.
pub(super) async fn logs(
    State(server): State<Arc<Server>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let respond = |accepted: Accepted| ExportLogsServiceResponse {
        partial_success: partial(&accepted, |rejected_log_records, error_message| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message,
        }),
    };
    take::<ExportLogsServiceRequest, _>(&server, &caller, request, Signal::Logs, otlp::logs, respond).await
}

fn partial<P>(accepted: &Accepted, make: impl FnOnce(i64, String) -> P) -> Option<P> {
    let items = i64::try_from(accepted.refused.items).unwrap_or(i64::MAX);
    (items > 0).then(|| make(items, accepted.refused.message()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

type Translate<Q> = fn(&Q, &dyn Fn(&ServiceId) -> Result<(), String>) -> Translated;

async fn take<Q, R>(
    server: &Server,
    caller: &Caller,
    request: Request,
    signal: Signal,
    translate: Translate<Q>,
    respond: impl FnOnce(Accepted) -> R,
) -> Result<Response, Problem>
where
    Q: prost::Message + Default + DeserializeOwned + 'static,
    R: prost::Message + Serialize,
{
    let encoding = encoding(request.headers())?;
    let gzip = is_gzip(request.headers())?;
    let bytes_max = server.config.otlp_bytes_max;
    let bytes = body(request, bytes_max).await?;
    let large = bytes.len() > if gzip { INLINE_BYTES_MAX / 8 } else { INLINE_BYTES_MAX };
    let (identity, now) = (caller.identity.clone(), server.now());
    let work = move || -> Result<Translated, Problem> {
        let bytes = if gzip { unpack(&bytes, bytes_max)? } else { bytes };
        Ok(translate(&decode(encoding, &bytes)?, &Server::covers(&identity, now)))
    };
    let translated = if large { off_thread(work).await? } else { work()? };
    let accepted = server.ingest(signal, &caller.identity, caller.header(), translated).await?;
    encode(encoding, &respond(accepted))
}

/// Protobuf needs about 10 ns a byte at worst; a large body must not hold up the other connections of this thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |error| Problem::new(Code::Internal, format!("decoding failed: {error}"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error)))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    match text(headers, "content-type").map(essence) {
        Some("application/x-protobuf") => Ok(Encoding::Protobuf),
        Some("application/json") => Ok(Encoding::Json),
        other => {
            let other: String = other.unwrap_or("missing").chars().take(80).collect();
            let detail = format!("the Content-Type is '{other}'; send application/x-protobuf or application/json");
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    match text(headers, "content-encoding").map(str::trim) {
        None | Some("" | "identity") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => {
            let other: String = other.chars().take(80).collect();
            let detail = format!("the Content-Encoding is '{other}'; send gzip or nothing");
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
}

/// Unpacks gzip, at most `bytes_max` bytes however small it came.
fn unpack(packed: &[u8], bytes_max: usize) -> Result<Bytes, Problem> {
    let mut bytes = Vec::with_capacity(packed.len().saturating_mul(4).min(bytes_max));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read = MultiGzDecoder::new(packed).take(limit).read_to_end(&mut bytes);
    if let Err(error) = read {
        return Err(Problem::new(Code::MalformedBody, format!("the body is not gzip: {error}")));
    }
    if bytes.len() > bytes_max {
        return Err(Problem::new(Code::BodyTooLarge, format!("the body unpacks to more than {bytes_max} bytes")));
    }
    Ok(bytes.into())
}

fn decode<Q: prost::Message + Default + DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<Q, Problem> {
    let malformed = |detail: String| Problem::new(Code::MalformedBody, detail);
    match encoding {
        Encoding::Protobuf => {
            Q::decode(bytes).map_err(|error| malformed(format!("the body is no OTLP protobuf: {error}")))
        }
        Encoding::Json => {
            serde_json::from_slice(bytes).map_err(|error| malformed(format!("the body is no OTLP JSON: {error}")))
        }
    }
}

fn encode<R: prost::Message + Serialize>(encoding: Encoding, answer: &R) -> Result<Response, Problem> {
    let (kind, bytes) = match encoding {
        Encoding::Protobuf => ("application/x-protobuf", answer.encode_to_vec()),
        Encoding::Json => {
            let value = serde_json::to_value(answer).map(proto3);
            let bytes = value.and_then(|value| serde_json::to_vec(&value));
            ("application/json", bytes.map_err(|error| Problem::new(Code::Internal, error.to_string()))?)
        }
    };
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// The answer as proto3 writes JSON: a field that is not set is left out, a number of 64 bits is a string.
fn proto3(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, proto3(value))).collect())
        }
        Value::Number(number) => Value::String(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_not_unpacked_beyond_the_limit() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 4096);
        assert_eq!(unpack(&bomb, 65_536).unwrap_err().code, Code::BodyTooLarge);
        assert_eq!(unpack(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        assert_eq!(unpack(b"plain", 100).unwrap_err().code, Code::MalformedBody);
    }

    #[test]
    fn a_body_that_is_not_what_it_says_is_refused() {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let problem = decode::<ExportTraceServiceRequest>(encoding, b"\xff\xff\xff").unwrap_err();
            assert_eq!(problem.code, Code::MalformedBody);
        }
    }
}
