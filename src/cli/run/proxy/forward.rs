//! One request on its way to the node, and the answer on its way back.

use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::{
    Request, Response, StatusCode, Uri, Version,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, EXPECT, HOST, HeaderValue},
    http::uri::{Authority, Scheme},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::json;

use super::{
    caller::Caller,
    gate::{DAPR_TOKEN, Refusal, has_token, judge},
};
use crate::{cli::error::Error, model::ServiceId, wire};

/// How long it may take to reach the node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection to the node is kept that nobody uses.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What is answered: the node's own stream, or a text of ours.
pub(super) type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// The way to one node as one service.
pub(super) struct Forward {
    node: Authority,
    service: ServiceId,
    token: HeaderValue,
    /// HTTP/1.1 goes on as HTTP/1.1, and HTTP/2 as HTTP/2: so nothing that a version can say is lost.
    http1: Client<HttpConnector, Incoming>,
    http2: Client<HttpConnector, Incoming>,
}

impl Forward {
    pub(super) fn new(node: &str, service: &ServiceId, token: &str) -> Result<Self, Error> {
        let uri = Uri::try_from(node).ok().filter(|uri| uri.scheme() == Some(&Scheme::HTTP));
        let node = uri.and_then(|uri| uri.authority().cloned());
        let node = node.ok_or_else(|| Error::Usage("--node must be a URL such as http://127.0.0.1:7070".to_owned()))?;
        let mut token = HeaderValue::try_from(token)
            .map_err(|_| Error::Usage("--token is no key: it has characters that no key has".to_owned()))?;
        token.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX);
        let http1 = builder.build(connector.clone());
        builder.http2_only(true).http2_adaptive_window(true).http2_keep_alive_interval(wire::PING_EVERY);
        Ok(Self { node, service: service.clone(), token, http1, http2: builder.build(connector) })
    }

    /// Passes a request on, or says why not.
    pub(super) async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let is_grpc =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        match self.try_answer(request, caller).await {
            Ok(mut response) => {
                wire::strip(response.headers_mut());
                response.map(Either::Left)
            }
            Err(why) => why.answer(is_grpc),
        }
    }

    async fn try_answer(&self, mut request: Request<Incoming>, caller: &Caller) -> Result<Response<Incoming>, Why> {
        // Judged as it came: stripping takes out whatever `Connection` names.
        let judged = judge(request.uri(), request.headers());
        let headers = request.headers_mut();
        wire::strip(headers);
        // The body was waited for by our own end; the name is the node's own.
        headers.remove(EXPECT);
        headers.remove(HOST);
        if !has_token(headers, &self.service)? {
            judged?;
            caller.is_same_user().await?;
            headers.insert(DAPR_TOKEN, self.token.clone());
        }
        let path = request.uri().path_and_query().ok_or(Why::NoPath)?.clone();
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.node.clone()).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|_| Why::NoPath)?;
        let client = if request.version() == Version::HTTP_2 { &self.http2 } else { &self.http1 };
        client.request(request).await.map_err(|error| Why::Unreachable(self.node.clone(), cause(&error)))
    }
}

fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Why a request does not reach the node.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("this request has no path")]
    NoPath,
    #[error("the twin's node at http://{0} does not answer ({1}); the call may be made again once it does")]
    Unreachable(Authority, String),
}

impl Why {
    /// In the words of whoever asked: problem+json (RFC 9457), or an answer of gRPC that consists of its trailers.
    fn answer(&self, is_grpc: bool) -> Answer {
        let (status, code, title) = match self {
            Self::Refused(Refusal::AnotherToken(_)) => (StatusCode::UNAUTHORIZED, 16, "another token"),
            Self::Refused(_) => (StatusCode::FORBIDDEN, 16, "not the service"),
            Self::NoPath => (StatusCode::BAD_REQUEST, 3, "no path"),
            Self::Unreachable(..) => (StatusCode::SERVICE_UNAVAILABLE, 14, "no node"),
        };
        let mut body = json!({ "title": title, "status": status.as_u16(), "detail": self.to_string() });
        if status == StatusCode::UNAUTHORIZED {
            // What SDKs of Dapr read.
            body["errorCode"] = "ERR_UNAUTHENTICATED".into();
            body["message"] = self.to_string().into();
        }
        let body = body.to_string();
        let body = if is_grpc { Bytes::new() } else { Bytes::from(body) };
        let mut response = Response::new(Either::Right(Full::new(body)));
        let kind = if is_grpc { "application/grpc" } else { "application/problem+json" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if is_grpc {
            response.headers_mut().insert("grpc-status", HeaderValue::from(code));
            // Escaped as gRPC has it; what our texts say is ASCII already.
            let text: String =
                self.to_string().chars().map(|c| if c == '%' || !(' '..='~').contains(&c) { '?' } else { c }).collect();
            response
                .headers_mut()
                .insert("grpc-message", HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("refused")));
        } else {
            *response.status_mut() = status;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_callers_own_protocol() {
        let why = Why::from(Refusal::Host);
        assert_eq!(why.answer(false).status(), StatusCode::FORBIDDEN);
        let grpc = why.answer(true);
        assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from(16)));
        assert!(grpc.headers()["grpc-message"].to_str().unwrap().contains("DAPR_API_TOKEN"));
        let gone = Why::Unreachable(Authority::from_static("127.0.0.1:7070"), "é%".into()).answer(true);
        assert!(gone.headers()["grpc-message"].to_str().unwrap().contains("(??)"));
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused_at_the_start() {
        let service = ServiceId::parse("shop/orders").unwrap();
        assert!(Forward::new("http://127.0.0.1:7070", &service, "twk\n").is_err());
        assert!(Forward::new("https://127.0.0.1:7070", &service, "twk").is_err());
    }
}
