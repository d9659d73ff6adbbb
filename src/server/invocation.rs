//! One service calls another: ruled on by both twins, carried by a channel, seen in the caller's edges.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ahash::HashMap;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header, uri::PathAndQuery},
};
use compact_str::{CompactString, format_compact};
use hyper::body::{Bytes, Frame};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Server,
    channel::{Channel, Unreached},
    pass::Pass,
    principal,
};
use crate::{
    capability::invocation::{Admit, METHOD_BYTES_MAX, Permit, name_of},
    model::{
        Header, ServiceId,
        telemetry::{Batch, Peer, PeerKind, SpanKind, SpanSample},
    },
    twin::{Failure, Rejection, service::message::Ingest},
    wire,
};

/// Channels that a call is offered to, if it was sent on none.
const OFFERS_MAX: usize = 3;
/// Stated of the caller and the called by the node alone.
pub const STATED: [&str; 3] = ["dapr-caller-app-id", "dapr-caller-namespace", "dapr-callee-app-id"];

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
    /// The caller's twin refuses, or cannot be asked.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The caller has as many calls under way as it may.
    #[error(
        "{caller} has {max} calls under way, as many as server.calls_per_service_max lets one service have at once"
    )]
    Full {
        /// Who calls.
        caller: ServiceId,
        /// The bound.
        max: usize,
    },
    /// Nobody answers; equal for services that exist, those that do not, and those that take no calls of this one.
    #[error("no instance of {target} answers")]
    Unanswered {
        /// Who was called, as the caller sees it.
        target: CompactString,
    },
}

impl Call {
    /// The call of a path by a method.
    ///
    /// Scopes are about what an application will understand. So the path is decoded for them, runs of slashes count as
    /// one and a final one as none; what applications understand in more than one way is refused: an encoded slash, a
    /// `;`, a segment `.` or `..`, control characters.
    pub fn new(caller: &ServiceId, target: &ServiceId, method: &Method, path: &str) -> Result<Self, Rejection> {
        if [Method::CONNECT, Method::TRACE].contains(method) {
            return Err(Rejection::invalid(format!("{method} does not invoke anything")));
        }
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
        let decoded = decoded.map_err(|_| Rejection::invalid("the path is not UTF-8"))?;
        let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
        let is_plain = slashes(path) == slashes(&decoded)
            && !decoded.contains(|c: char| c.is_control() || matches!(c, '\\' | ';' | '#' | '?'))
            && decoded.split('/').all(|segment| !matches!(segment, "." | ".."));
        if !is_plain {
            return Err(Rejection::invalid(
                "a path that is invoked has no segments '.' and '..', no encoded '/', '?' and '#', no ';', '\\' and control \
                 characters",
            ));
        }
        let segments: Vec<&str> = decoded.split('/').filter(|segment| !segment.is_empty()).collect();
        let method = format_compact!("{method} /{}", segments.join("/"));
        if method.len() > METHOD_BYTES_MAX {
            return Err(Rejection::invalid(format!("method and path have at most {METHOD_BYTES_MAX} bytes")));
        }
        Ok(Self { caller: caller.clone(), target: target.clone(), method })
    }

    /// The target, as the caller sees it.
    fn target(&self) -> CompactString {
        if self.caller.namespace() == self.target.namespace() {
            self.target.name().into()
        } else {
            self.target.as_str().into()
        }
    }

    /// What the caller hears of a call that nobody answers; why is in the log.
    pub fn unanswered(&self, why: impl std::fmt::Display) -> Uncalled {
        tracing::debug!(caller = %self.caller, target = %self.target, method = %self.method, %why, "a call is not answered");
        Uncalled::Unanswered { target: self.target() }
    }

    /// Who calls whom, for the called.
    pub fn stated(&self) -> [(&'static str, &str); 3] {
        let [caller, namespace, callee] = STATED;
        [(caller, self.caller.name()), (namespace, self.caller.namespace()), (callee, self.target.name())]
    }
}

/// A call that was let through, with a place on a channel for as long as it lasts.
pub struct Carried {
    /// The channel.
    pub channel: Arc<Channel>,
    places: Places,
}

/// What a call holds until the last of its answer was sent: a place on its channel, and one of its caller's.
struct Places {
    _channel: OwnedSemaphorePermit,
    caller: UnderWay,
}

/// Calls under way, by caller.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<HashMap<ServiceId, usize>>>);

/// One of them.
struct UnderWay {
    calls: Calls,
    caller: ServiceId,
}

impl Calls {
    fn begin(&self, caller: &ServiceId, max: usize) -> Result<UnderWay, Uncalled> {
        let mut all = self.0.lock();
        let count = all.entry(caller.clone()).or_default();
        if *count >= max {
            return Err(Uncalled::Full { caller: caller.clone(), max });
        }
        *count += 1;
        Ok(UnderWay { calls: self.clone(), caller: caller.clone() })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut all = self.calls.0.lock();
        let Some(count) = all.get_mut(&self.caller) else { return };
        *count -= 1;
        if *count == 0 {
            all.remove(&self.caller);
        }
    }
}

impl Server {
    /// Asks both twins, and finds an instance of the target.
    pub async fn admit_call(&self, call: &Call, header: Header) -> Result<Carried, Uncalled> {
        let name = name_of(&call.caller, &call.target, &call.method);
        let deadline = header.deadline;
        self.call(&call.caller, Permit { name }, header, None).await?;
        let under_way = self.calls.begin(&call.caller, self.config.calls_per_service_max)?;
        let mut admission = Header::default();
        admission.deadline = deadline;
        let admit = Admit { caller: call.caller.clone(), method: call.method.clone() };
        match self.call(&call.target, admit, admission, None).await {
            Ok(true) => self.find_instance(call, under_way),
            Ok(false) => Err(call.unanswered("its twin does not take calls of this service")),
            Err(failure) => Err(call.unanswered(failure)),
        }
    }

    fn find_instance(&self, call: &Call, caller: UnderWay) -> Result<Carried, Uncalled> {
        let channel = self.way_to(&call.target).ok_or_else(|| call.unanswered("none is connected"))?;
        let place =
            channel.call_permit().ok_or_else(|| call.unanswered("each is busy with as many calls as it takes"))?;
        Ok(Carried { channel, places: Places { _channel: place, caller } })
    }

    /// Carries a call to an instance that [`Server::admit_call`] found, or to another one if nothing of it was sent. The
    /// answer is here with its head; its body, as the request's, comes as it is sent, while `pass` is good.
    pub async fn carry_call(
        &self,
        call: &Call,
        mut carried: Carried,
        path: PathAndQuery,
        mut request: Request<Body>,
        pass: Pass,
    ) -> Result<Response<Body>, Uncalled> {
        pass_on(request.headers_mut());
        for (name, value) in call.stated() {
            let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""));
            request.headers_mut().insert(name, value);
        }
        for _ in 1..OFFERS_MAX {
            match self.timed(call, carried.channel.ask(path.clone(), request), status_of).await {
                Ok(response) => return Ok(kept(response, pass, carried.places)),
                Err(Unreached { unsent: Some(unsent), .. }) => request = *unsent,
                Err(unreached) => return Err(call.unanswered(unreached)),
            }
            carried = self.find_instance(call, carried.places.caller)?;
        }
        let answered = self.timed(call, carried.channel.ask(path, request), status_of).await;
        answered.map(|response| kept(response, pass, carried.places)).map_err(|unreached| call.unanswered(unreached))
    }

    /// Waits for an answer, and notes the call among the caller's edges; the status of one without an answer is 0.
    pub async fn timed<T>(
        &self,
        call: &Call,
        asked: impl Future<Output = Result<T, Unreached>>,
        status: impl FnOnce(&T) -> u16,
    ) -> Result<T, Unreached> {
        let mut noted = Noted { server: self, call, began: tokio::time::Instant::now(), status: Some(0) };
        let within = Duration::from_secs(self.config.deadline_s);
        let late = || Unreached::new(format!("no answer within {} s", within.as_secs()));
        let answered = tokio::time::timeout(within, asked).await.unwrap_or_else(|_| Err(late()));
        noted.status = match &answered {
            Ok(answer) => Some(status(answer)),
            // It goes another way.
            Err(Unreached { unsent: Some(_), .. }) => None,
            Err(_) => Some(0),
        };
        answered
    }
}

fn status_of(response: &Response<Body>) -> u16 {
    response.status().as_u16()
}

/// A call under way; it becomes one of its caller's edges however it ends.
struct Noted<'a> {
    server: &'a Server,
    call: &'a Call,
    began: tokio::time::Instant,
    /// 0 if nobody answered; `None` if it does not count.
    status: Option<u16>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let Self { server, call, began, status: Some(status) } = self else { return };
        let mut batch = Batch::new(call.caller.clone());
        batch.spans.push(SpanSample {
            id: rand::random(),
            operation: batch.symbols.intern("invoke"),
            kind: SpanKind::Client,
            failed: *status == 0 || *status >= 400,
            status_class: u8::try_from(*status / 100).unwrap_or_default(),
            duration_ns: u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            end: server.now(),
            peer: Some(Peer { kind: PeerKind::Service, name: batch.symbols.intern(&call.target()) }),
        });
        let told = server.runtime.twin(call.caller.key()).tell_with(Header::default(), Ingest(Box::new(batch)));
        if let Err(refused) = told {
            tracing::debug!(failure = %refused.failure, caller = %call.caller, "a call is missing in its caller's edges");
        }
    }
}

/// The body of an answer, which ends early if its caller's key no longer counts.
struct Kept {
    body: Body,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    _places: Places,
}

fn kept(mut response: Response<Body>, mut pass: Pass, places: Places) -> Response<Body> {
    wire::strip(response.headers_mut());
    let over = Box::pin(async move { drop(pass.over().await) });
    response.map(|body| Body::new(Kept { body, over, _places: places }))
}

impl hyper::body::Body for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new("the key of this call no longer counts"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Takes out what was meant for this end alone, keys above all.
pub fn pass_on(headers: &mut HeaderMap) {
    wire::strip(headers);
    if principal::is_bearer_key(headers) {
        headers.remove(header::AUTHORIZATION);
    }
    for name in ["dapr-api-token", "dapr-app-id", "host"].into_iter().chain(STATED) {
        headers.remove(HeaderName::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(path: &str) -> Result<CompactString, Rejection> {
        let [caller, target] = ["shop/a", "shop/b"].map(|text| ServiceId::parse(text).unwrap());
        Call::new(&caller, &target, &Method::GET, path).map(|call| call.method)
    }

    #[test]
    fn scopes_are_about_what_an_application_understands() {
        assert_eq!(method("/charge/4%32").unwrap(), "GET /charge/42");
        assert_eq!(method("//a///b/").unwrap(), "GET /a/b");
        assert_eq!(method("").unwrap(), "GET /");
        let long = format!("/{}", "x".repeat(METHOD_BYTES_MAX));
        for bad in [
            "/a/../b",
            "/a/%2e%2e/b",
            "/./a",
            "/a/..%5cb",
            "/%ff",
            "/a/..;/b",
            "/a;x",
            "/a%2fb",
            "/a%3fb",
            "/a%00",
            &long,
        ] {
            assert!(method(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_and_what_is_for_one_hop_do_not_go_on() {
        let left = |authorization: &'static str| {
            let pairs = [
                ("dapr-api-token", "t"),
                ("authorization", authorization),
                ("dapr-caller-app-id", "forged"),
                ("connection", "x-own"),
                ("x-own", "1"),
                ("te", "trailers"),
                ("traceparent", "00-1"),
            ];
            let mut headers: HeaderMap =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
            pass_on(&mut headers);
            let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left("Bearer somebodys-login"), ["authorization", "te", "traceparent"]);
        assert_eq!(left("bearer twk_key"), ["te", "traceparent"], "a key of ours goes nowhere");
    }
}
