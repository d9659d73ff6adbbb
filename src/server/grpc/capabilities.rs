//! Every public request of the registry over gRPC: `twin.v1.Capabilities` (docs/formats.md, "Capabilities over gRPC").

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, State},
    http::{HeaderMap, HeaderValue, Request},
    response::Response,
    routing::{MethodRouter, post},
};
use tonic::{Status, server::Grpc};
use tonic_prost::ProstCodec;

use crate::{
    model::ServiceId,
    server::{
        Server, capabilities,
        http::Caller,
        problem::{Code, Problem},
    },
};

/// Asks a service's twin.
#[derive(Clone, PartialEq, prost::Message)]
struct CallRequest {
    /// `namespace/name`; a name alone is one in `default`.
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    capability: String,
    #[prost(string, tag = "3")]
    request: String,
    /// The request's fields in JSON; nothing for one without.
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CallResponse {
    /// The answer in JSON.
    #[prost(bytes = "vec", tag = "1")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    requests: Vec<ListedRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListedRequest {
    #[prost(string, tag = "1")]
    capability: String,
    #[prost(string, tag = "2")]
    request: String,
    #[prost(string, tag = "3")]
    operation: String,
    /// Whether a twin may come into being with it.
    #[prost(bool, tag = "4")]
    creates: bool,
}

/// Every method that is served.
pub(super) fn router() -> Router<Arc<Server>> {
    Router::new().route("/twin.v1.Capabilities/Call", unary(call)).route("/twin.v1.Capabilities/List", unary(list))
}

/// Serves a method. Who asks is established before anything of the message is read.
fn unary<Q, A, F, W>(method: F) -> MethodRouter<Arc<Server>>
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    F: Fn(Caller, Q) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<A, Problem>> + Send + 'static,
{
    post(async move |State(server): State<Arc<Server>>, request: Request<Body>| -> Response {
        let (mut parts, body) = request.into_parts();
        say_timeout(&mut parts.headers);
        let caller = match Caller::from_request_parts(&mut parts, &server).await {
            Ok(caller) => Some(caller),
            Err(problem) => return Status::from(problem).into_http(),
        };
        let codec = ProstCodec::<A, Q>::default();
        let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(server.config.body_bytes_max), None);
        grpc.unary(Method { caller, method }, Request::from_parts(parts, body)).await.map(Body::new)
    })
}

/// A method of one caller, who asks once.
struct Method<F> {
    caller: Option<Caller>,
    method: F,
}

impl<Q, A, F, W> tonic::server::UnaryService<Q> for Method<F>
where
    A: 'static,
    F: Fn(Caller, Q) -> W,
    W: Future<Output = Result<A, Problem>> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = self.caller.take().map(|caller| (self.method)(caller, request.into_inner()));
        Box::pin(async move {
            match answer {
                Some(answer) => Ok(tonic::Response::new(answer.await?)),
                None => Err(Problem::new(Code::Internal, "the request was asked twice").into()),
            }
        })
    }
}

/// `grpc-timeout` as the header that the native API has for it, which goes before.
fn say_timeout(headers: &mut HeaderMap) {
    const NATIVE: &str = "request-timeout";
    let said = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(seconds);
    let said = said.and_then(|seconds| HeaderValue::try_from(seconds.to_string()).ok());
    if let Some(seconds) = said
        && !headers.contains_key(NATIVE)
    {
        headers.insert(NATIVE, seconds);
    }
}

/// At most 8 digits and a unit (gRPC over HTTP/2, "Timeout").
fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = number.parse().ok().filter(|_| number.len() <= 8)?;
    let per_unit = match unit {
        "H" => 3600.0,
        "M" => 60.0,
        "S" => 1.0,
        "m" => 1e-3,
        "u" => 1e-6,
        "n" => 1e-9,
        _ => return None,
    };
    Some(f64::from(number) * per_unit)
}

async fn call(caller: Caller, request: CallRequest) -> Result<CallResponse, Problem> {
    let CallRequest { service, capability, request, body } = request;
    let service = ServiceId::parse(&service)?;
    let at = (service.namespace(), service.name());
    let reply = capabilities::call(&caller, at, (&capability, &request), &body).await?;
    Ok(CallResponse { body: reply.get().into() })
}

async fn list(_: Caller, _: ListRequest) -> Result<ListResponse, Problem> {
    let requests = capabilities::list().into_iter().map(|listed| ListedRequest {
        capability: listed.capability.into(),
        request: listed.request.into(),
        operation: listed.operation.into(),
        creates: listed.creates,
    });
    Ok(ListResponse { requests: requests.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, wanted) in [("1S", 1.0), ("1500m", 1.5), ("2M", 120.0), ("1H", 3600.0), ("0S", 0.0)] {
            assert_eq!(seconds(text), Some(wanted), "{text}");
        }
        for wrong in ["", "S", "1", "1x", "1.5S", "-1S", "123456789S", "1\u{e9}"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
