//! One service calls another: ruled on by both twins, carried by a channel, seen in the caller's edges.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header, uri::PathAndQuery},
};
use compact_str::CompactString;

use super::{Server, channel::Channel};
use crate::{
    capability::invocation::{Admit, Permit, name_of},
    model::{
        Header, ServiceId,
        telemetry::{Batch, Peer, PeerKind, SpanKind, SpanSample},
    },
    twin::{Failure, Rejection, service::message::Ingest},
};

/// Between two ends only, and not for whoever is behind (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

/// Why nobody answers, as far as a caller is told.
const NONE: &str = "none is connected";

/// A call on its way.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who calls.
    pub caller: ServiceId,
    /// Who is called.
    pub target: ServiceId,
    /// Method and path, as scopes name them: `POST /charge`.
    pub method: CompactString,
}

/// Why a call does not reach its target.
#[derive(Debug, thiserror::Error)]
pub enum Uncalled {
    /// A twin refuses, or cannot be asked.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// Nobody answers; equal for services that exist and those that do not.
    #[error("no instance of {target} answers: {why}")]
    Unanswered {
        /// Who was called, as the caller sees it.
        target: CompactString,
        /// What is known of the reason.
        why: String,
    },
}

impl Call {
    /// The call of a path by a method.
    ///
    /// Scopes are about what an application will understand: the path is decoded, runs of slashes count as one, and one
    /// with `.` or `..` for a segment is refused.
    pub fn new(caller: &ServiceId, target: &ServiceId, method: &str, path: &str) -> Result<Self, Rejection> {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
        let decoded = decoded.map_err(|_| Rejection::invalid("the path is not UTF-8"))?;
        if decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | "..")) {
            return Err(Rejection::invalid("a path that is invoked has no segments '.' and '..'"));
        }
        let segments: Vec<&str> = decoded.split('/').filter(|segment| !segment.is_empty()).collect();
        let slash = if decoded.ends_with('/') && !segments.is_empty() { "/" } else { "" };
        let method = compact_str::format_compact!("{method} /{}{slash}", segments.join("/"));
        Ok(Self { caller: caller.clone(), target: target.clone(), method })
    }

    fn unanswered(&self, why: impl Into<String>) -> Uncalled {
        let target = if self.caller.namespace() == self.target.namespace() {
            self.target.name().into()
        } else {
            self.target.as_str().into()
        };
        Uncalled::Unanswered { target, why: why.into() }
    }
}

impl Server {
    /// Asks both twins, and finds an instance of the target.
    pub async fn admit_call(&self, call: &Call, header: Header) -> Result<Arc<Channel>, Uncalled> {
        let name = name_of(&call.caller, &call.target, &call.method);
        self.call(&call.caller, Permit { name }, header.clone(), None).await?;
        let mut admission = Header::default();
        if let Some(deadline) = header.deadline {
            admission = admission.with_deadline(deadline);
        }
        let admit = Admit { caller: call.caller.clone(), method: call.method.clone() };
        if !self.call(&call.target, admit, admission, None).await? {
            let rule =
                format!("'{}' on {} is not allowed: it does not take calls of this service", call.method, call.target);
            return Err(Failure::from(Rejection::Denied { rule: rule.into() }).into());
        }
        self.way_to(&call.target).ok_or_else(|| call.unanswered(NONE))
    }

    /// Carries a call to an instance that [`Server::admit_call`] found. The answer is here with its head; its body, as
    /// the request's, comes as it is sent.
    pub async fn carry_call(
        &self,
        call: &Call,
        channel: &Channel,
        path: PathAndQuery,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Uncalled> {
        pass_on(request.headers_mut());
        let headers = request.headers_mut();
        for (name, value) in [
            ("dapr-caller-app-id", call.caller.name()),
            ("dapr-caller-namespace", call.caller.namespace()),
            ("dapr-callee-app-id", call.target.name()),
        ] {
            headers.insert(name, HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("")));
        }
        let within = Duration::from_secs(self.config.deadline_s);
        let began = tokio::time::Instant::now();
        let answered = tokio::time::timeout(within, channel.ask(path, request)).await;
        let answered = match answered {
            Ok(Ok(mut response)) => {
                pass_on(response.headers_mut());
                Ok(response)
            }
            // Where an endpoint is, and what its service may, is no matter of the caller.
            Ok(Err(_)) if channel.is_endpoint() => Err(call.unanswered(NONE)),
            Ok(Err(unreached)) => Err(call.unanswered(unreached.to_string())),
            Err(_) => Err(call.unanswered(format!("no answer within {} s", within.as_secs()))),
        };
        self.note_call(call, began.elapsed(), answered.as_ref().map_or(0, |response| response.status().as_u16()));
        answered
    }

    /// The call is one of the caller's edges; its status is 0 if nobody answered.
    fn note_call(&self, call: &Call, took: Duration, status: u16) {
        let mut batch = Batch::new(call.caller.clone());
        let name = if call.caller.namespace() == call.target.namespace() {
            batch.symbols.intern(call.target.name())
        } else {
            batch.symbols.intern(call.target.as_str())
        };
        batch.spans.push(SpanSample {
            id: rand::random(),
            operation: batch.symbols.intern("invoke"),
            kind: SpanKind::Client,
            failed: status == 0 || status >= 400,
            status_class: u8::try_from(status / 100).unwrap_or_default(),
            duration_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            end: self.now(),
            peer: Some(Peer { kind: PeerKind::Service, name }),
        });
        let told = self.runtime.twin(call.caller.key()).tell_with(Header::default(), Ingest(Box::new(batch)));
        if let Err(refused) = told {
            tracing::debug!(failure = %refused.failure, caller = %call.caller, "a call is missing in its caller's edges");
        }
    }
}

/// Takes out what was meant for this end alone, keys above all.
fn pass_on(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let speaks_of_trailers = headers.get(header::TE).is_some_and(|te| te == "trailers");
    // Whoever sends no key under Dapr's name sent it as the bearer's.
    if headers.remove("dapr-api-token").is_none() {
        headers.remove(header::AUTHORIZATION);
    }
    for name in named.iter().chain(&HOP_BY_HOP).chain([&header::CONNECTION, &header::TE]) {
        headers.remove(name);
    }
    for name in ["dapr-app-id", "dapr-caller-app-id", "dapr-caller-namespace", "dapr-callee-app-id"] {
        headers.remove(name);
    }
    if speaks_of_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(path: &str) -> Result<CompactString, Rejection> {
        let [caller, target] = ["shop/a", "shop/b"].map(|text| ServiceId::parse(text).unwrap());
        Call::new(&caller, &target, "GET", path).map(|call| call.method)
    }

    #[test]
    fn scopes_are_about_what_an_application_understands() {
        assert_eq!(method("/charge/4%32").unwrap(), "GET /charge/42");
        assert_eq!(method("//a///b/").unwrap(), "GET /a/b/");
        assert_eq!(method("").unwrap(), "GET /");
        for bad in ["/a/../b", "/a/%2e%2e/b", "/./a", "/a/..%5cb", "/%ff"] {
            assert!(method(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_and_what_is_for_one_hop_do_not_go_on() {
        let pairs = [
            ("dapr-api-token", "t"),
            ("authorization", "Basic user"),
            ("dapr-caller-app-id", "forged"),
            ("connection", "x-own"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("traceparent", "00-1"),
        ];
        let build = |skip: &str| -> HeaderMap {
            let pairs = pairs.iter().filter(|(name, _)| *name != skip);
            pairs.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let left = |skip| {
            let mut headers = build(skip);
            pass_on(&mut headers);
            let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left(""), ["authorization", "te", "traceparent"]);
        assert_eq!(left("dapr-api-token"), ["te", "traceparent"], "the bearer's is the key itself");
    }
}
