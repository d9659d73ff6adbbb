//! Topics as Dapr's clients use them: events wrapped on their way in, as documented for `CloudEvents` 1.0.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use compact_str::CompactString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Block, Refusal, Session, state::Metadata};
use crate::{
    bus::{Outcome, Stored},
    capability::components::Kind,
    model::{ServiceId, Timestamp, TraceParent, limits::WRITE_BYTES_MAX},
    server::{
        http::essence,
        problem::Problem,
        topics::{Delivery, Subscription},
    },
    twin::part::Bytes,
};

/// Most messages of one append.
const AT_ONCE: usize = crate::model::limits::NEEDS_KEYS_MAX;
/// What a message takes in a commit beside its body, at most, in bytes: its other fields, the page of its id.
const BESIDE_BODY_BYTES: usize = 1024;
/// Says that what is published is no event and gets none around it.
const RAW: &str = "rawPayload";
/// Overrides of an event's fields begin so.
const OVERRIDE: &str = "cloudevent.";
/// The media type of an event.
pub const EVENT: &str = "application/cloudevents+json";
/// Deliveries of a message before it goes to the dead letters, if there is a topic for them.
const ATTEMPTS_MAX: u32 = 10;

/// An event's fields, each as it was written: data is handed over byte for byte.
pub type Event = BTreeMap<String, Box<RawValue>>;

fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("texts and JSON values serialize")
}

/// A field that is a text.
fn text(event: &Event, name: &str) -> Option<String> {
    serde_json::from_str(event.get(name)?.get()).ok()
}

/// What is published.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The data, or an event.
    pub data: Vec<u8>,
    /// Its media type; text if empty.
    pub content_type: String,
    /// Metadata of the request.
    pub metadata: Metadata,
}

/// Where and by whom something is published.
struct Around<'a> {
    source: &'a ServiceId,
    component: &'a str,
    topic: &'a str,
    trace: Option<TraceParent>,
    now: Timestamp,
}

/// Whether metadata ask for what is published and no event around it.
pub fn wants_raw(metadata: &Metadata) -> bool {
    metadata.get(RAW).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || essence.ends_with("+json")
}

/// The message as it is kept.
fn stored(published: Published, around: &Around<'_>) -> Result<Stored, Refusal> {
    let Published { data, content_type, metadata } = published;
    let content_type = if content_type.is_empty() { "text/plain".to_owned() } else { content_type };
    let ttl_s = super::state::ttl_s(&metadata)?;
    let expires_at = ttl_s.map(|seconds| around.now.after(std::time::Duration::from_secs(seconds)));
    let fresh = || uuid::Uuid::new_v4().to_string();
    if wants_raw(&metadata) {
        return Ok(Stored {
            id: fresh().into(),
            is_idempotent: false,
            source: around.source.clone(),
            published_at: around.now,
            expires_at,
            is_raw: true,
            content_type: content_type.into(),
            body: Bytes(data),
        });
    }
    let mut event = if essence(&content_type) == EVENT {
        serde_json::from_slice(&data)
            .map_err(|_| Refusal::malformed(format!("what is published as {EVENT} must be a JSON object")))?
    } else {
        wrap(&data, &content_type)
    };
    let chosen = event.contains_key("id") || metadata.contains_key("cloudevent.id");
    complete(&mut event, around, expires_at);
    for (name, value) in &metadata {
        if let Some(field) = name.strip_prefix(OVERRIDE) {
            event.insert(field.to_owned(), raw(value));
        }
    }
    let id: CompactString = text(&event, "id").filter(|id| !id.is_empty()).unwrap_or_else(fresh).into();
    event.insert("id".to_owned(), raw(&id));
    Ok(Stored {
        id,
        is_idempotent: chosen,
        source: around.source.clone(),
        published_at: around.now,
        expires_at,
        is_raw: false,
        content_type: EVENT.into(),
        body: Bytes(raw(&event).get().as_bytes().to_vec()),
    })
}

/// An event around data.
fn wrap(data: &[u8], content_type: &str) -> Event {
    let mut event = Event::new();
    event.insert("datacontenttype".to_owned(), raw(&content_type));
    if is_json(content_type)
        && let Ok(value) = serde_json::from_slice::<Box<RawValue>>(data)
    {
        event.insert("data".to_owned(), value);
    } else if let Ok(text) = std::str::from_utf8(data)
        && !content_type.starts_with("application/octet-stream")
    {
        event.insert("data".to_owned(), raw(&text));
    } else {
        event.insert("data_base64".to_owned(), raw(&BASE64_STANDARD.encode(data)));
    }
    event
}

/// Fills in what every event has.
fn complete(event: &mut Event, around: &Around<'_>, expires_at: Option<Timestamp>) {
    let trace = around.trace.map(|trace| trace.to_string()).unwrap_or_default();
    let fields = [
        ("source", around.source.name().to_owned()),
        ("specversion", "1.0".to_owned()),
        ("type", "com.dapr.event.sent".to_owned()),
        ("time", around.now.to_string()),
        ("traceid", trace.clone()),
        ("traceparent", trace),
        ("tracestate", String::new()),
    ];
    for (name, value) in fields {
        event.entry(name.to_owned()).or_insert_with(|| raw(&value));
    }
    event.insert("topic".to_owned(), raw(&around.topic));
    event.insert("pubsubname".to_owned(), raw(&around.component));
    if let Some(at) = expires_at {
        event.insert("expiration".to_owned(), raw(&at.to_string()));
    }
}

/// A message as it is handed to a subscriber.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The event's id.
    pub id: String,
    /// The event, complete.
    pub event: Event,
    /// Its data as bytes.
    pub data: Vec<u8>,
    /// Their media type.
    pub data_content_type: String,
}

/// What a subscriber gets of a message.
fn handed(message: &Stored, component: &str, topic: &str, wants_raw: bool) -> Handed {
    let around = Around { source: &message.source, component, topic, trace: None, now: message.published_at };
    if message.is_raw {
        let mut event = wrap(&message.body.0, "application/octet-stream");
        complete(&mut event, &around, message.expires_at);
        event.insert("id".to_owned(), raw(&message.id));
        let data_content_type = "application/octet-stream".to_owned();
        return Handed { id: message.id.to_string(), event, data: message.body.0.clone(), data_content_type };
    }
    let event: Event = serde_json::from_slice(&message.body.0).unwrap_or_default();
    if wants_raw {
        let data_content_type = "application/octet-stream".to_owned();
        return Handed { id: message.id.to_string(), event, data: message.body.0.clone(), data_content_type };
    }
    let stated = text(&event, "datacontenttype").unwrap_or_else(|| "application/json".to_owned());
    let plain = || text(&event, "data").filter(|_| !is_json(&stated));
    let data = match (event.get("data"), text(&event, "data_base64")) {
        (Some(data), _) => plain().unwrap_or_else(|| data.get().to_owned()).into_bytes(),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    let data_content_type = essence(&stated).to_owned();
    Handed { id: message.id.to_string(), event, data, data_content_type }
}

/// How many of the first messages fit one commit; one of them always goes, to be refused by itself if it must.
fn fitting(messages: &[(String, Stored)]) -> usize {
    let mut bytes = 0;
    let fit = messages.iter().take(AT_ONCE).take_while(|(_, message)| {
        bytes += message.body.0.len() + BESIDE_BODY_BYTES;
        bytes <= WRITE_BYTES_MAX
    });
    fit.count().max(1)
}

/// What a subscriber says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Success,
    /// It shall come again.
    Retry,
    /// It goes to the dead letters, if there is a topic for them.
    Drop,
}

/// What to subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The component.
    pub component: String,
    /// The topic.
    pub topic: String,
    /// Where messages go that are dropped or failed too often.
    pub dead_letter_topic: Option<String>,
    /// Whether bodies are wanted as they were published.
    pub raw: bool,
}

/// Messages of a topic on their way to one subscriber.
pub struct Taking {
    session: Session,
    wanted: Wanted,
    subscription: Subscription,
    /// Handed over and not settled yet.
    unsettled: Vec<Unsettled>,
}

struct Unsettled {
    id: CompactString,
    number: u64,
    attempts: u32,
}

impl Session {
    /// Publishes something.
    pub async fn topic_publish(&self, component: &str, topic: &str, published: Published) -> Result<(), Refusal> {
        self.topic_check(component, topic).await?;
        let message = stored(published, &self.around(component, topic))?;
        self.topic_append(component, topic, vec![message]).await
    }

    /// Publishes several things; answers with those that were refused, and why.
    pub async fn topic_publish_all(
        &self,
        component: &str,
        topic: &str,
        entries: Vec<(String, Published)>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        self.topic_check(component, topic).await?;
        let mut ids: Vec<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        if ids.first().is_some_and(|id| id.is_empty()) || ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal {
                code: "ERR_PUBSUB_EVENTS_SER".into(),
                ..Refusal::malformed("each entry needs an entryId of its own")
            });
        }
        let (mut failed, mut messages) = (Vec::new(), Vec::new());
        for (id, published) in entries {
            match stored(published, &self.around(component, topic)) {
                Ok(message) => messages.push((id, message)),
                Err(refusal) => failed.push((id, refusal.message)),
            }
        }
        while !messages.is_empty() {
            let rest = messages.split_off(fitting(&messages));
            let (ids, chunk): (Vec<_>, Vec<_>) = std::mem::replace(&mut messages, rest).into_iter().unzip();
            if let Err(refusal) = self.topic_append(component, topic, chunk).await {
                failed.extend(ids.into_iter().map(|id| (id, refusal.message.clone())));
            }
        }
        Ok(failed)
    }

    fn around<'a>(&'a self, component: &'a str, topic: &'a str) -> Around<'a> {
        let trace = self.header.trace().copied();
        Around { source: &self.service, component, topic, trace, now: self.server.now() }
    }

    async fn topic_check(&self, component: &str, topic: &str) -> Result<(), Refusal> {
        self.component(Block::Publish, component, Kind::Pubsub).await?;
        if topic.is_empty() {
            return Err(Refusal::no_topic(component));
        }
        Ok(())
    }

    async fn topic_append(&self, component: &str, topic: &str, messages: Vec<Stored>) -> Result<(), Refusal> {
        let published = self.server.publish(&self.service, component, topic, messages, self.header()).await;
        let problem = |failure: &_| self.server.problem(failure);
        published.map(drop).map_err(|failure| Refusal::of(Block::Publish, component, &failure, problem))
    }

    /// Begins to take messages, at most so many at once.
    pub async fn topic_take(self, wanted: Wanted, outstanding_max: usize) -> Result<Taking, Refusal> {
        let Wanted { component, topic, .. } = &wanted;
        self.topic_check(component, topic).await?;
        let header = self.header();
        let subscribed =
            self.server.subscribe(&self.service, component, topic, &self.identity, header, outstanding_max).await;
        let problem = |failure: &_| self.server.problem(failure);
        let subscription = subscribed.map_err(|failure| Refusal::of(Block::Publish, component, &failure, problem))?;
        Ok(Taking { session: self, wanted, subscription, unsettled: Vec::new() })
    }
}

impl Taking {
    /// Waits for the next message.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Handed, Problem> {
        let delivery = self.subscription.next().await?;
        let handed = handed(&delivery.message, &self.wanted.component, &self.wanted.topic, self.wanted.raw);
        let Delivery { number, attempts, message } = delivery;
        self.unsettled.push(Unsettled { id: message.id, number, attempts });
        Ok(handed)
    }

    /// What every door shares.
    pub fn server(&self) -> std::sync::Arc<crate::server::Server> {
        std::sync::Arc::clone(&self.session.server)
    }

    /// What to take.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes a verdict on a message by its event's id; one of an unknown id is passed over.
    pub async fn settle(&mut self, id: &str, verdict: Verdict) {
        let Some(at) = self.unsettled.iter().position(|unsettled| unsettled.id == id) else { return };
        let Unsettled { number, attempts, .. } = self.unsettled.remove(at);
        let has_failed = verdict == Verdict::Retry && attempts >= ATTEMPTS_MAX;
        let outcome = match verdict {
            Verdict::Success => Outcome::Done,
            Verdict::Retry if !has_failed || self.wanted.dead_letter_topic.is_none() => Outcome::Again,
            Verdict::Retry | Verdict::Drop => match self.bury(number).await {
                Ok(()) => Outcome::Done,
                Err(refusal) => {
                    tracing::warn!(
                        reason = refusal.message,
                        "a message did not reach its dead letters, and comes again"
                    );
                    Outcome::Again
                }
            },
        };
        self.subscription.settle(number, outcome);
    }

    /// Gives back a message that nobody has tried.
    pub fn give_back(&mut self, id: &str) {
        if let Some(at) = self.unsettled.iter().position(|unsettled| unsettled.id == id) {
            self.subscription.settle(self.unsettled.remove(at).number, Outcome::Back);
        }
    }

    /// Ends it, and waits until what became of its messages is kept; what nobody said anything of is given back.
    pub async fn close(self) {
        self.subscription.close().await;
    }

    /// Puts a message that goes nowhere any more into the topic for those.
    async fn bury(&self, number: u64) -> Result<(), Refusal> {
        let Some(topic) = self.wanted.dead_letter_topic.as_deref().filter(|topic| !topic.is_empty()) else {
            return Ok(());
        };
        let problem = |failure| Refusal::from(self.session.server.problem(&failure));
        let Some(message) = self.subscription.read(number).await.map_err(problem)? else { return Ok(()) };
        // Where it comes from makes it the same message however often this is tried, and another than one of its id that
        // comes from elsewhere; the event within keeps its own.
        let Wanted { component, topic: from, .. } = &self.wanted;
        let id = compact_str::format_compact!("{}/{component}/{from}/{number}", self.session.service);
        let message = Stored { id, is_idempotent: true, ..message };
        self.session.topic_append(&self.wanted.component, topic, vec![message]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceId {
        ServiceId::parse("shop/checkout").unwrap()
    }

    fn keep(data: &[u8], content_type: &str, metadata: &[(&str, &str)]) -> Stored {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let published = Published { data: data.to_vec(), content_type: content_type.to_owned(), metadata };
        let source = service();
        let now = Timestamp::from_unix_ms(1_000);
        stored(published, &Around { source: &source, component: "pubsub", topic: "orders", trace: None, now }).unwrap()
    }

    fn event(message: &Stored) -> serde_json::Value {
        serde_json::from_slice(&message.body.0).unwrap()
    }

    #[test]
    fn data_is_wrapped_by_its_media_type() {
        let json = event(&keep(br#"{"id":7}"#, "application/json", &[]));
        assert_eq!((&json["data"]["id"], &json["datacontenttype"]), (&7.into(), &"application/json".into()));
        for (name, value) in
            [("source", "checkout"), ("specversion", "1.0"), ("type", "com.dapr.event.sent"), ("topic", "orders")]
        {
            assert_eq!(json[name], value, "{name}");
        }
        assert_eq!((&json["tracestate"], &json["traceid"]), (&"".into(), &"".into()), "there, and empty");
        assert_eq!(event(&keep(b"plain", "", &[]))["data"], "plain");
        assert_eq!(event(&keep(&[0, 255], "application/octet-stream", &[]))["data_base64"], "AP8=");
    }

    #[test]
    fn fields_are_overridden_and_a_chosen_id_is_idempotent() {
        let message =
            keep(b"x", "", &[("cloudevent.id", "mine"), ("cloudevent.type", "my.type"), ("ttlInSeconds", "5")]);
        let shown = event(&message);
        assert_eq!((shown["id"].as_str(), shown["type"].as_str()), (Some("mine"), Some("my.type")));
        assert!(message.is_idempotent && message.expires_at == Some(Timestamp::from_unix_ms(6_000)));
        assert!(!keep(b"x", "", &[]).is_idempotent);
        let own = keep(br#"{"id":"a","source":"s","type":"t","specversion":"1.0","colour":"red"}"#, EVENT, &[]);
        assert_eq!((event(&own)["source"].as_str(), event(&own)["colour"].as_str()), (Some("s"), Some("red")));
    }

    #[test]
    fn what_is_published_at_once_is_cut_to_fit_commits() {
        let message = |bytes: usize| (String::new(), keep(&vec![b'x'; bytes], "text/plain", &[]));
        assert_eq!(fitting(&vec![message(10); 100]), AT_ONCE);
        let large = fitting(&vec![message(30 * 1024); 16]);
        assert!((2..AT_ONCE).contains(&large), "{large}");
        assert_eq!(fitting(&[message(WRITE_BYTES_MAX)]), 1);
    }

    #[test]
    fn what_is_handed_over_is_what_was_published() {
        let text = handed(&keep(b"plain", "text/plain", &[]), "pubsub", "orders", false);
        assert_eq!((text.data.as_slice(), text.data_content_type.as_str()), (&b"plain"[..], "text/plain"));
        let json = handed(&keep(br#"{"a":1}"#, "application/json; charset=utf-8", &[]), "pubsub", "orders", false);
        assert_eq!((json.data.as_slice(), json.data_content_type.as_str()), (&br#"{"a":1}"#[..], "application/json"));
        let spaced = handed(&keep(br#"{"a": 1}"#, "application/json", &[]), "pubsub", "orders", false);
        assert_eq!(spaced.data, br#"{"a": 1}"#, "byte for byte");
        let raw = handed(&keep(&[1, 2], "application/json", &[("rawPayload", "true")]), "pubsub", "orders", true);
        assert_eq!(raw.data, [1, 2]);
    }
}
