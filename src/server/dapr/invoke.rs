//! Invocation as Dapr's clients ask for it, to applications that speak HTTP and those that speak gRPC.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery},
};
use compact_str::CompactString;
use dapr::dapr::proto::{
    common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension::Verb},
    runtime::v1::InvokeServiceRequest,
};
use http_body_util::{BodyExt as _, Limited};
use tonic::{Code as Grpc, Extensions, Status, metadata::KeyAndValueRef};

use super::{
    Block, Refusal, Session,
    app::App,
    headers::{of_grpc, to_headers, to_metadata},
};
use crate::{
    model::ServiceId,
    server::{
        channel::Protocol,
        http,
        invocation::{Call, Carried, Uncalled, pass_on},
        pass::Pass,
    },
};

/// Most that is told of an answer that refuses, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// The status of an answer over HTTP, for whoever called over gRPC.
const HTTP_STATUS: &str = "dapr-http-status";
/// What an application serves for its node alone.
const CALLBACK: &str = "/dapr.proto.runtime.v1.AppCallback";

impl Session {
    /// A service as clients name it: in the caller's own namespace, `namespace/name`, or as Dapr writes it,
    /// `name.namespace`. A name that has a dot of its own is written in the second way.
    fn target(&self, app: &str) -> Result<ServiceId, Refusal> {
        let named = match (app.split_once('/'), app.split_once('.')) {
            (Some((namespace, name)), _) => Some((namespace, name)),
            (None, None) => Some((self.service.namespace(), app)),
            (None, Some((name, namespace))) => (!namespace.contains('.')).then_some((namespace, name)),
        };
        let said = |why: &str| Refusal::malformed(format!("the app id '{app}': {why}"));
        let named = named.filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty()).ok_or_else(|| {
            said("it is a name alone, or 'namespace/name', or 'name.namespace' where neither has a dot of its own")
        });
        let (namespace, name) = named?;
        ServiceId::new(namespace, name).map_err(|error| said(&error.to_string()))
    }

    /// Invokes a method over HTTP; bodies are streamed to applications that speak it, too.
    pub async fn invoke(
        &self,
        app: &str,
        path: PathAndQuery,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let call = self.new_call(app, request.method(), path.path())?;
        let carried =
            self.server.admit_call(&call, self.header()).await.map_err(|error| self.uncalled(&call, error))?;
        if carried.channel.protocol == Protocol::Http || is_grpc(&request) {
            return self.carry(&call, carried, path, request).await;
        }
        let (head, body) = request.into_parts();
        let body = http::body(Request::new(body), self.server.config.body_bytes_max).await?;
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let extension = HttpExtension {
            verb: verb_of(&head.method).into(),
            querystring: path.query().unwrap_or_default().to_owned(),
        };
        let request = InvokeRequest {
            method: String::new(),
            data: Some(prost_types::Any { type_url: String::new(), value: body.into() }),
            content_type: content_type.unwrap_or_default().to_owned(),
            http_extension: Some(extension),
        };
        let answered = self.on_invoke(&call, carried, &path, request, head.headers).await?;
        let (metadata, InvokeResponse { data, content_type }, _) = answered.into_parts();
        let mut response = Response::new(Body::from(data.unwrap_or_default().value));
        *response.headers_mut() = to_headers(metadata);
        if let Ok(kind) = HeaderValue::try_from(content_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(response)
    }

    /// Invokes a method over gRPC; what stands beside the call and its answer goes on.
    pub async fn invoke_message(
        &self,
        request: tonic::Request<InvokeServiceRequest>,
    ) -> Result<tonic::Response<InvokeResponse>, Status> {
        let (metadata, _, InvokeServiceRequest { id: app, message }) = request.into_parts();
        let request = message.ok_or_else(|| Refusal::malformed("the request has no message"))?;
        let extension = request.http_extension.clone().unwrap_or_default();
        let method = method_of(extension.verb());
        let mut path = format!("/{}", request.method.trim_start_matches('/'));
        if path.contains('#') {
            return Err(Refusal::malformed(format!("the method '{}' is no path", request.method)).into());
        }
        if !extension.querystring.is_empty() {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&extension.querystring);
        }
        let path = path.parse::<PathAndQuery>();
        let path = path.map_err(|_| Refusal::malformed(format!("the method '{}' is no path", request.method)))?;
        let call = self.new_call(&app, &method, path.path())?;
        let carried =
            self.server.admit_call(&call, self.header()).await.map_err(|error| self.uncalled(&call, error))?;
        if carried.channel.protocol == Protocol::Grpc {
            let answered = self.on_invoke(&call, carried, &path, request, of_grpc(metadata)).await?;
            let (metadata, answer, _) = answered.into_parts();
            return Ok(tonic::Response::from_parts(to_metadata(&of_grpc(metadata)), answer, Extensions::default()));
        }
        let mut sent = Request::new(Body::from(request.data.unwrap_or_default().value));
        *sent.method_mut() = method;
        *sent.headers_mut() = to_headers(metadata);
        let trace = self.header.trace().map(ToString::to_string);
        for (name, value) in [("content-type", Some(request.content_type)), ("traceparent", trace)] {
            let value = value.filter(|value| !value.is_empty()).and_then(|value| HeaderValue::try_from(value).ok());
            value.map(|value| sent.headers_mut().insert(name, value));
        }
        let (head, body) = self.carry(&call, carried, path, sent).await?.into_parts();
        let bytes_max = self.server.config.body_bytes_max;
        let within = Duration::from_secs(self.server.config.deadline_s);
        let read = tokio::time::timeout(within, Limited::new(body, bytes_max).collect()).await;
        let unread = |why: &str| Refusal::internal("ERR_DIRECT_INVOKE", format!("the answer of {app}: {why}"));
        let read = read.map_err(|_| unread("it does not come to its end"))?;
        let body = read.map_err(|error| unread(&format!("{error} (at most {bytes_max} bytes)")))?.to_bytes();
        let mut metadata = to_metadata(&head.headers);
        metadata.insert(HTTP_STATUS, head.status.as_u16().into());
        if head.status.is_success() {
            let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let data = Some(prost_types::Any { type_url: String::new(), value: body.into() });
            let answer = InvokeResponse { data, content_type: kind.unwrap_or_default().to_owned() };
            return Ok(tonic::Response::from_parts(metadata, answer, Extensions::default()));
        }
        // It becomes a header of the answer.
        let message = String::from_utf8_lossy(&body[..body.len().min(MESSAGE_BYTES_MAX)]).into_owned();
        let (code, grpc) = ("ERR_DIRECT_INVOKE".into(), code_of(head.status));
        let mut status = Status::from(Refusal { code, http: head.status, grpc, message, details: Vec::new() });
        for entry in metadata.iter() {
            if let KeyAndValueRef::Ascii(name, value) = entry {
                status.metadata_mut().insert(name.clone(), value.clone());
            }
        }
        Err(status)
    }

    async fn carry(
        &self,
        call: &Call,
        carried: Carried,
        path: PathAndQuery,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let pass = Pass::new(Arc::clone(&self.server), &self.identity);
        let answered = self.server.carry_call(call, carried, path, request, pass).await;
        answered.map_err(|error| self.uncalled(call, error))
    }

    /// Invokes an application that speaks gRPC, with the path that was ruled on.
    async fn on_invoke(
        &self,
        call: &Call,
        carried: Carried,
        path: &PathAndQuery,
        request: InvokeRequest,
        mut headers: HeaderMap,
    ) -> Result<tonic::Response<InvokeResponse>, Refusal> {
        let mut extension = request.http_extension.clone().unwrap_or_default();
        path.query().unwrap_or_default().clone_into(&mut extension.querystring);
        let method = path.path().trim_start_matches('/').to_owned();
        let request = InvokeRequest { method, http_extension: Some(extension), ..request };
        pass_on(&mut headers);
        let mut request = tonic::Request::from_parts(to_metadata(&headers), Extensions::default(), request);
        let trace = self.header.trace().map(ToString::to_string);
        let stated = call.stated().map(|(name, value)| (name, value.to_owned()));
        for (name, value) in stated.into_iter().chain(trace.map(|trace| ("traceparent", trace))) {
            if let Ok(value) = value.parse() {
                request.metadata_mut().insert(name, value);
            }
        }
        let app = App(Arc::clone(&carried.channel));
        let asked = app.on_invoke(request, self.server.config.body_bytes_max);
        let status = |answered: &Result<_, tonic::Status>| match answered {
            Ok(_) => 200,
            Err(status) => of_status(status).http.as_u16(),
        };
        match self.server.timed(call, asked, status).await {
            Ok(answered) => answered.map_err(|status| of_status(&status)),
            Err(unreached) => Err(self.uncalled(call, call.unanswered(unreached))),
        }
    }

    fn new_call(&self, app: &str, method: &Method, path: &str) -> Result<Call, Refusal> {
        let target = self.target(app)?;
        if path.starts_with(CALLBACK) {
            return Err(Refusal::malformed(
                "what an application serves for its runtime is not invoked; see InvokeService",
            ));
        }
        let call = Call::new(&self.service, &target, method, path);
        call.map_err(|rejection| Refusal::malformed(rejection.to_string()))
    }

    fn uncalled(&self, call: &Call, error: Uncalled) -> Refusal {
        let target = call.target.name();
        match error {
            Uncalled::Full { .. } => Refusal::full("ERR_DIRECT_INVOKE", error.to_string()),
            Uncalled::Refused(failure) => {
                Refusal::of(Block::Invoke, target, &failure, |failure| self.server.problem(failure))
            }
            Uncalled::Unanswered { .. } => Refusal {
                grpc: Grpc::Unavailable,
                ..Refusal::internal("ERR_DIRECT_INVOKE", format!("failed to invoke, id: {target}, err: {error}"))
            },
        }
    }
}

/// Whether a request is one of gRPC.
pub fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What an application answered with.
fn of_status(status: &tonic::Status) -> Refusal {
    let http = match status.code() {
        Grpc::InvalidArgument | Grpc::FailedPrecondition | Grpc::OutOfRange => StatusCode::BAD_REQUEST,
        Grpc::Unauthenticated => StatusCode::UNAUTHORIZED,
        Grpc::PermissionDenied => StatusCode::FORBIDDEN,
        Grpc::NotFound => StatusCode::NOT_FOUND,
        Grpc::AlreadyExists | Grpc::Aborted => StatusCode::CONFLICT,
        Grpc::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Grpc::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Grpc::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Grpc::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Grpc::Ok | Grpc::Cancelled | Grpc::Unknown | Grpc::Internal | Grpc::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let (code, message) = ("ERR_DIRECT_INVOKE".into(), status.message().to_owned());
    Refusal { code, http, grpc: status.code(), message, details: Vec::new() }
}

/// The code of gRPC for a status of HTTP, as Dapr's runtime maps them.
fn code_of(status: StatusCode) -> Grpc {
    match status.as_u16() {
        400 => Grpc::Internal,
        401 => Grpc::Unauthenticated,
        403 => Grpc::PermissionDenied,
        404 => Grpc::NotFound,
        408 => Grpc::Cancelled,
        409 => Grpc::AlreadyExists,
        429 => Grpc::ResourceExhausted,
        501 => Grpc::Unimplemented,
        503 => Grpc::Unavailable,
        504 => Grpc::DeadlineExceeded,
        _ => Grpc::Unknown,
    }
}

fn method_of(verb: Verb) -> Method {
    match verb {
        Verb::Get => Method::GET,
        Verb::Head => Method::HEAD,
        // Who says nothing posts.
        Verb::Post | Verb::None => Method::POST,
        Verb::Put => Method::PUT,
        Verb::Delete => Method::DELETE,
        Verb::Connect => Method::CONNECT,
        Verb::Options => Method::OPTIONS,
        Verb::Trace => Method::TRACE,
        Verb::Patch => Method::PATCH,
    }
}

fn verb_of(method: &Method) -> Verb {
    Verb::from_str_name(method.as_str()).unwrap_or(Verb::None)
}

/// Paths of the Dapr API itself: what names an application there does not mean to invoke it by that.
const OWN: [&str; 4] = ["/v1.0/", "/v1.0-alpha", "/v1.0-beta", "/dapr.proto.runtime.v1.Dapr/"];

/// The app id that a request names in its head, whatever else its path is.
pub fn named<B>(request: &Request<B>) -> Option<CompactString> {
    if OWN.iter().any(|own| request.uri().path().starts_with(own)) {
        return None;
    }
    let named = request.headers().get("dapr-app-id")?.to_str().ok()?;
    (!named.is_empty()).then(|| named.into())
}
