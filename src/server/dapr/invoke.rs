//! Invocation as Dapr's clients ask for it, to applications that speak HTTP and those that speak gRPC.

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery},
};
use compact_str::CompactString;
use dapr::dapr::proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension::Verb};
use http_body_util::{BodyExt as _, Limited};
use tonic::Code as Grpc;

use super::{Block, Refusal, Session, app::App};
use crate::{
    model::ServiceId,
    server::{
        channel::Protocol,
        invocation::{Call, Uncalled},
    },
};

/// The answer of a method that was invoked, read whole.
struct Invoked {
    status: StatusCode,
    content_type: String,
    body: Vec<u8>,
}

impl Session {
    /// A service as clients name it: in the caller's own namespace, or `namespace/name`.
    fn target(&self, app: &str) -> Result<ServiceId, Refusal> {
        let id = if app.contains('/') { ServiceId::parse(app) } else { ServiceId::new(self.service.namespace(), app) };
        id.map_err(|error| Refusal::malformed(format!("the app id '{app}': {error}")))
    }

    /// Invokes a method over HTTP; bodies are streamed to applications that speak it, too.
    pub async fn invoke(
        &self,
        app: &str,
        path: PathAndQuery,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let call = self.new_call(app, request.method(), path.path())?;
        let channel =
            self.server.admit_call(&call, self.header()).await.map_err(|error| self.uncalled(&call, error))?;
        match channel.protocol {
            Protocol::Http => {
                let carried = self.server.carry_call(&call, &channel, path, request).await;
                carried.map_err(|error| self.uncalled(&call, error))
            }
            Protocol::Grpc if is_grpc(&request) => {
                let carried = self.server.carry_call(&call, &channel, path, request).await;
                carried.map_err(|error| self.uncalled(&call, error))
            }
            Protocol::Grpc => {
                let (head, body) = request.into_parts();
                let value = self.whole(body).await?;
                let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                let request = InvokeRequest {
                    method: path.path().trim_start_matches('/').to_owned(),
                    data: Some(prost_types::Any { type_url: String::new(), value }),
                    content_type: content_type.unwrap_or_default().to_owned(),
                    http_extension: Some(HttpExtension {
                        verb: verb_of(&head.method).into(),
                        querystring: path.query().unwrap_or_default().to_owned(),
                    }),
                };
                let InvokeResponse { data, content_type } =
                    App(channel).on_invoke(request).await.map_err(|status| of_status(&status))?;
                let mut response = Response::new(Body::from(data.unwrap_or_default().value));
                if let Ok(kind) = HeaderValue::try_from(content_type) {
                    response.headers_mut().insert(header::CONTENT_TYPE, kind);
                }
                Ok(response)
            }
        }
    }

    /// Invokes a method over gRPC.
    pub async fn invoke_message(&self, app: &str, request: InvokeRequest) -> Result<InvokeResponse, Refusal> {
        let extension = request.http_extension.clone().unwrap_or_default();
        let method = method_of(extension.verb());
        let mut path = format!("/{}", request.method.trim_start_matches('/'));
        if !extension.querystring.is_empty() {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&extension.querystring);
        }
        let path = path.parse::<PathAndQuery>();
        let path = path.map_err(|_| Refusal::malformed(format!("the method '{}' is no path", request.method)))?;
        let call = self.new_call(app, &method, path.path())?;
        let channel =
            self.server.admit_call(&call, self.header()).await.map_err(|error| self.uncalled(&call, error))?;
        if channel.protocol == Protocol::Grpc {
            return App(channel).on_invoke(request).await.map_err(|status| of_status(&status));
        }
        let mut sent = Request::new(Body::from(request.data.unwrap_or_default().value));
        *sent.method_mut() = method;
        let trace = self.header.trace().map(ToString::to_string);
        for (name, value) in [("content-type", Some(request.content_type)), ("traceparent", trace)] {
            let value = value.filter(|value| !value.is_empty()).and_then(|value| HeaderValue::try_from(value).ok());
            value.map(|value| sent.headers_mut().insert(name, value));
        }
        let carried = self.server.carry_call(&call, &channel, path, sent).await;
        let Invoked { status, content_type, body } =
            self.read(carried.map_err(|error| self.uncalled(&call, error))?).await?;
        if status.is_success() {
            let data = Some(prost_types::Any { type_url: String::new(), value: body });
            return Ok(InvokeResponse { data, content_type });
        }
        let message = String::from_utf8_lossy(&body).into_owned();
        Err(Refusal {
            code: "ERR_DIRECT_INVOKE".into(),
            http: status,
            grpc: code_of(status),
            message,
            details: Vec::new(),
        })
    }

    fn new_call(&self, app: &str, method: &Method, path: &str) -> Result<Call, Refusal> {
        let target = self.target(app)?;
        let call = Call::new(&self.service, &target, method.as_str(), path);
        call.map_err(|rejection| Refusal::malformed(rejection.to_string()))
    }

    fn uncalled(&self, call: &Call, error: Uncalled) -> Refusal {
        let target = call.target.name();
        match error {
            Uncalled::Refused(failure) => {
                Refusal::of(Block::Invoke, target, &failure, |failure| self.server.problem(failure))
            }
            Uncalled::Unanswered { .. } => Refusal {
                grpc: Grpc::Unavailable,
                ..Refusal::internal("ERR_DIRECT_INVOKE", format!("failed to invoke, id: {target}, err: {error}"))
            },
        }
    }

    async fn whole(&self, body: Body) -> Result<Vec<u8>, Refusal> {
        let bytes_max = self.server.config.body_bytes_max;
        let read = Limited::new(body, bytes_max).collect().await;
        let read =
            read.map_err(|error| Refusal::malformed(format!("the body (at most {bytes_max} bytes): {error}")))?;
        Ok(read.to_bytes().into())
    }

    async fn read(&self, response: Response<Body>) -> Result<Invoked, Refusal> {
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        Ok(Invoked { status: head.status, content_type, body: self.whole(body).await? })
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

/// Paths of the node itself: what names an application there does not mean to invoke it by that.
const OWN: [&str; 3] = ["/v1.0", "/api/", "/dapr.proto.runtime.v1.Dapr/"];

/// The app id that a request names in its head, whatever else its path is.
pub fn named<B>(request: &Request<B>) -> Option<CompactString> {
    if OWN.iter().any(|own| request.uri().path().starts_with(own)) {
        return None;
    }
    let named = request.headers().get("dapr-app-id")?.to_str().ok()?;
    (!named.is_empty()).then(|| named.into())
}
