//! What an application is asked: its subscriptions, what is pushed to it, what it is invoked with.
//!
//! Over HTTP these are paths of its own (`GET /dapr/subscribe`, `POST` to each route); over gRPC it serves
//! `dapr.proto.runtime.v1.AppCallback`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery},
};
use dapr::dapr::proto::{
    common::v1::{InvokeRequest, InvokeResponse},
    runtime::v1::{
        TopicSubscription, app_callback_client::AppCallbackClient, topic_event_response::TopicEventResponseStatus,
    },
};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::{
    event::topic_event,
    pubsub::{EVENT, Handed, Verdict, Wanted, wants_raw},
    state::Metadata,
};
use crate::{
    capability::topics::Subscription,
    server::channel::{Channel, Protocol, UNREACHED, Unreached},
};

/// Largest list of subscriptions or verdict that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long an application may take to list its subscriptions.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an application may work on one message; then the message comes again.
const WORK_TIMEOUT: Duration = Duration::from_secs(60);
/// Most subscriptions that an application may state.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Most messages of one subscription that an application works on at once.
const CONCURRENCY_MAX: usize = 32;
/// By this metadata a subscription takes more than one message at once, and gives up their order.
const CONCURRENCY: &str = "maxConcurrentMessages";
/// What is not written as it is within a segment of a path (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Something an application wants to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// What.
    pub wanted: Wanted,
    /// Where to: a path over HTTP; over gRPC what tells handlers apart.
    pub path: String,
    /// Messages at once; one keeps them in order, but for those that come again.
    pub concurrency: usize,
    /// Whether the service declared it to its twin, rather than the application to us.
    pub is_declared: bool,
}

impl Subscribed {
    /// By which an application has it once.
    pub(super) fn place(&self) -> (&str, &str) {
        (&self.wanted.component, &self.wanted.topic)
    }

    /// Says no to what cannot be pushed, with the reason.
    pub(super) fn new(
        component: String,
        topic: String,
        path: &str,
        dead_letter_topic: &str,
        metadata: &Metadata,
    ) -> Result<Self, String> {
        let raw = wants_raw(metadata);
        let concurrency = metadata.get(CONCURRENCY).map_or(Ok(1), |text| text.parse());
        let concurrency = concurrency.ok().filter(|count| (1..=CONCURRENCY_MAX).contains(count));
        let concurrency =
            concurrency.ok_or_else(|| format!("the metadata {CONCURRENCY} is a number from 1 to {CONCURRENCY_MAX}"))?;
        let dead_letter_topic = (!dead_letter_topic.is_empty()).then(|| dead_letter_topic.to_owned());
        let wanted = Wanted { component, topic, dead_letter_topic, raw };
        Ok(Self { wanted, path: path.to_owned(), concurrency, is_declared: false })
    }

    /// The same of one that was declared.
    pub(super) fn declared(subscription: Subscription) -> Result<Self, String> {
        let Subscription { component, topic, path, dead_letter, metadata, .. } = subscription;
        let metadata = metadata.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let dead_letter = dead_letter.unwrap_or_default();
        let subscribed = Self::new(component.into(), topic.into(), &path, &dead_letter, &metadata)?;
        Ok(Self { is_declared: true, ..subscribed })
    }
}

/// Routes of a subscription: the default counts, since rules are not served.
fn route(default: &str, rules: bool, stated: &str) -> Result<String, String> {
    match (stated, default, rules) {
        ("", "", true) => Err("it has rules and no default route, and rules are not served".to_owned()),
        ("", default, _) => Ok(default.to_owned()),
        (stated, _, _) => Ok(stated.to_owned()),
    }
}

/// A subscription as applications state it over HTTP.
#[derive(Deserialize)]
struct Stated {
    #[serde(alias = "pubsubName")]
    pubsubname: String,
    topic: String,
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    routes: Option<Routes>,
    #[serde(default, rename = "deadLetterTopic")]
    dead_letter_topic: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Default, Deserialize)]
struct Routes {
    #[serde(default)]
    rules: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    default: Option<String>,
}

impl Stated {
    fn subscribed(self) -> Result<Subscribed, String> {
        let routes = self.routes.unwrap_or_default();
        let default = routes.default.unwrap_or_default();
        let path = route(&default, !routes.rules.is_empty(), &self.route.unwrap_or_default())?;
        let path = format!("/{}", path.trim_start_matches('/'));
        if path.parse::<PathAndQuery>().is_err() {
            return Err(format!("the route '{path}' is no path"));
        }
        let dead = self.dead_letter_topic.unwrap_or_default();
        Subscribed::new(self.pubsubname, self.topic, &path, &dead, &self.metadata.unwrap_or_default())
    }
}

fn of_grpc(stated: TopicSubscription) -> Result<Subscribed, String> {
    let routes = stated.routes.unwrap_or_default();
    // The path tells an application's handlers apart, exactly as it was stated; one with a single handler has none.
    let path = route(&routes.default, !routes.rules.is_empty(), "").unwrap_or_default();
    Subscribed::new(stated.pubsub_name, stated.topic, &path, &stated.dead_letter_topic, &stated.metadata)
}

/// One application.
#[derive(Clone)]
pub(super) struct App(pub(super) Arc<Channel>);

impl App {
    fn grpc(&self) -> AppCallbackClient<Self> {
        AppCallbackClient::new(self.clone())
    }

    async fn http(
        &self,
        method: Method,
        path: &str,
        media: &'static str,
        body: Vec<u8>,
    ) -> Result<Answered, Unreached> {
        let path = path.parse::<PathAndQuery>().map_err(Unreached::new)?;
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        let (head, body) = self.0.ask(path, request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Unreached::new)?;
        Ok(Answered { status: head.status, body: body.to_bytes().into() })
    }

    /// What it wants to be pushed; what of that cannot be is in the log.
    pub(super) async fn subscriptions(&self) -> Result<Vec<Subscribed>, Unreached> {
        let listed = tokio::time::timeout(LIST_TIMEOUT, async {
            match self.0.protocol {
                Protocol::Http => self.subscriptions_http().await,
                Protocol::Grpc => self.subscriptions_grpc().await,
            }
        });
        let listed = listed.await.map_err(|_| Unreached::new("it does not list its subscriptions in time"))??;
        let mut taken = Vec::new();
        for stated in listed {
            match stated {
                Ok(subscribed) if taken.len() < SUBSCRIPTIONS_MAX => taken.push(subscribed),
                Ok(_) => {
                    tracing::warn!(instance = %self.0.instance, SUBSCRIPTIONS_MAX, "an application states more subscriptions than are taken");
                    break;
                }
                Err(reason) => {
                    tracing::warn!(instance = %self.0.instance, reason, "a subscription that an application states is not served");
                }
            }
        }
        Ok(taken)
    }

    async fn subscriptions_http(&self) -> Result<Vec<Result<Subscribed, String>>, Unreached> {
        let Answered { status, body } =
            self.http(Method::GET, "/dapr/subscribe", "application/json", Vec::new()).await?;
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            return Err(Unreached::new(format!("GET /dapr/subscribe: {status}")));
        }
        if !status.is_success() {
            // It has none, and most say so by not knowing the path.
            return Ok(Vec::new());
        }
        Ok(match serde_json::from_slice::<Vec<Stated>>(&body) {
            Ok(stated) => stated.into_iter().map(Stated::subscribed).collect(),
            Err(error) => vec![Err(format!("GET /dapr/subscribe is no list of subscriptions: {error}"))],
        })
    }

    async fn subscriptions_grpc(&self) -> Result<Vec<Result<Subscribed, String>>, Unreached> {
        match self.grpc().list_topic_subscriptions(()).await {
            Ok(listed) => Ok(listed.into_inner().subscriptions.into_iter().map(of_grpc).collect()),
            Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
            Err(status) => Err(Unreached::new(status.message())),
        }
    }

    /// Hands a message over, and takes what the application says of it.
    pub(super) async fn deliver(&self, handed: Handed, subscribed: &Subscribed) -> Result<Verdict, Unreached> {
        let delivered = tokio::time::timeout(WORK_TIMEOUT, async {
            match self.0.protocol {
                Protocol::Http => self.deliver_http(handed, subscribed).await,
                Protocol::Grpc => self.deliver_grpc(handed, subscribed).await,
            }
        });
        delivered.await.unwrap_or_else(|_| {
            let (instance, topic) = (&self.0.instance, &subscribed.wanted.topic);
            tracing::debug!(%instance, topic, "an application works too long on a message, which comes again");
            Ok(Verdict::Retry)
        })
    }

    async fn deliver_http(&self, handed: Handed, subscribed: &Subscribed) -> Result<Verdict, Unreached> {
        let event = serde_json::to_vec(&handed.event).map_err(Unreached::new)?;
        let Answered { status, body } = self.http(Method::POST, &subscribed.path, EVENT, event).await?;
        Ok(verdict(status, &body).unwrap_or_else(|| {
            tracing::warn!(%status, path = subscribed.path, "an application has no route for a message, which is dropped");
            Verdict::Drop
        }))
    }

    async fn deliver_grpc(&self, handed: Handed, subscribed: &Subscribed) -> Result<Verdict, Unreached> {
        let event = topic_event(handed, &subscribed.wanted, subscribed.path.clone());
        match self.grpc().on_topic_event(event).await {
            Ok(answer) => Ok(match answer.into_inner().status() {
                TopicEventResponseStatus::Success => Verdict::Success,
                TopicEventResponseStatus::Retry => Verdict::Retry,
                TopicEventResponseStatus::Drop => Verdict::Drop,
            }),
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::warn!(
                    topic = subscribed.wanted.topic,
                    "an application serves no AppCallback; a message is dropped"
                );
                Ok(Verdict::Drop)
            }
            Err(status) if status.metadata().contains_key(UNREACHED) => Err(Unreached::new(status.message())),
            // The application's own word.
            Err(_) => Ok(Verdict::Retry),
        }
    }

    /// Tells an application over HTTP what a key of its configuration is now.
    pub(super) async fn tell_configuration(
        &self,
        store: &str,
        key: &str,
        told: &impl Serialize,
    ) -> Result<StatusCode, Unreached> {
        let [store, key] = [store, key].map(|text| utf8_percent_encode(text, SEGMENT));
        let path = format!("/configuration/{store}/{key}");
        let body = serde_json::to_vec(told).map_err(Unreached::new)?;
        let told = self.http(Method::POST, &path, "application/json", body);
        let told = tokio::time::timeout(WORK_TIMEOUT, told).await;
        told.map_err(|_| Unreached::new("it does not answer in time"))?.map(|answered| answered.status)
    }

    /// Invokes a method of an application that speaks gRPC; a status is the application's own.
    pub(super) async fn on_invoke(
        &self,
        request: tonic::Request<InvokeRequest>,
        bytes_max: usize,
    ) -> Result<Result<tonic::Response<InvokeResponse>, Status>, Unreached> {
        let mut client = self.grpc().max_decoding_message_size(bytes_max);
        match client.on_invoke(request).await {
            Err(status) if status.metadata().contains_key(UNREACHED) => Err(Unreached::new(status.message())),
            answered => Ok(answered),
        }
    }
}

struct Answered {
    status: StatusCode,
    body: Vec<u8>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    status: String,
}

/// What an HTTP answer says of a message; `None` if there is nobody for it.
fn verdict(status: StatusCode, body: &[u8]) -> Option<Verdict> {
    if status == StatusCode::NOT_FOUND {
        return None;
    }
    if !status.is_success() {
        return Some(Verdict::Retry);
    }
    let said = serde_json::from_slice::<Said>(body).map(|said| said.status).unwrap_or_default();
    Some(match said.as_str() {
        "" | "SUCCESS" => Verdict::Success,
        "DROP" => Verdict::Drop,
        // "RETRY", and whatever else an application may mean.
        _ => Verdict::Retry,
    })
}

impl tower::Service<Request<tonic::body::Body>> for App {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let channel = Arc::clone(&self.0);
        Box::pin(async move {
            let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            Ok(channel.ask(path, request.map(Body::new)).await.unwrap_or_else(|error| {
                let mut status = Status::unavailable(error.to_string());
                status.metadata_mut().insert(UNREACHED, tonic::metadata::MetadataValue::from_static("1"));
                status.into_http()
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_becomes_of_a_message() {
        let of = |status: u16, body: &str| verdict(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(of(200, ""), Some(Verdict::Success));
        assert_eq!(of(204, ""), Some(Verdict::Success));
        assert_eq!(of(200, r#"{"success":true}"#), Some(Verdict::Success));
        assert_eq!(of(200, r#"{"status":"SUCCESS"}"#), Some(Verdict::Success));
        assert_eq!(of(200, r#"{"status":"DROP"}"#), Some(Verdict::Drop));
        assert_eq!(of(200, r#"{"status":"RETRY"}"#), Some(Verdict::Retry));
        assert_eq!(of(200, r#"{"status":"else"}"#), Some(Verdict::Retry));
        assert_eq!(of(500, r#"{"status":"SUCCESS"}"#), Some(Verdict::Retry));
        assert_eq!(of(404, ""), None);
    }

    #[test]
    fn subscriptions_are_read_as_sdks_state_them() {
        let text = r#"[
            {"pubsubname":"pubsub","topic":"orders","route":"orders","metadata":{"rawPayload":"true"}},
            {"pubsubname":"pubsub","topic":"a/b","routes":{"rules":[{"match":"true","path":"/x"}],"default":"/y"},
             "deadLetterTopic":"dead"},
            {"pubsubname":"pubsub","topic":"c","routes":{"rules":[{"match":"true","path":"/x"}]}},
            {"pubsubname":"pubsub","topic":"d","route":"/d","metadata":{"maxConcurrentMessages":"0"}}
        ]"#;
        let stated: Vec<Stated> = serde_json::from_str(text).unwrap();
        let read: Vec<_> = stated.into_iter().map(Stated::subscribed).collect();
        let first = read[0].as_ref().unwrap();
        assert_eq!((first.path.as_str(), first.wanted.raw, first.concurrency), ("/orders", true, 1));
        let second = read[1].as_ref().unwrap();
        assert_eq!((second.path.as_str(), second.wanted.dead_letter_topic.as_deref()), ("/y", Some("dead")));
        assert!(read[2].as_ref().unwrap_err().contains("rules"));
        assert!(read[3].as_ref().unwrap_err().contains(CONCURRENCY));
    }
}
