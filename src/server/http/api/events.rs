//! Streams (server-sent events): what happens to one twin or to all, and the commands of an instance.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{At, Id};
use crate::{
    model::{Header, Key, ServiceId, Timestamp},
    runtime::{Behind, Published, Watch},
    server::{
        Server,
        http::caller::{Caller, text},
        identity::Wish,
        pass::Pass,
        problem::{Code, Problem},
    },
    twin::{
        self, Failure, Rejection, Twin,
        journal::Retold,
        service::{Service, limits::COMMANDS_LIVE_MAX, message::NextCommands, view::DeliveryView},
    },
};

/// How often a stream without events says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often a command stream looks for commands without having been woken.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// One of the streams that may be open; counted for as long as it is.
struct Open {
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(server: Arc<Server>) -> Result<Self, Problem> {
        let permit = server.stream()?;
        server.metrics.streams.inc();
        Ok(Self { server, _permit: permit })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.metrics.streams.dec();
    }
}

fn sse(stream: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Where a stream of all twins goes on: after a number of this start of the node, or after a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Now,
    After(u64),
    AnotherStart,
}

/// `Last-Event-ID` is `<start>.<number>`: numbers begin again with every start of the node.
fn resume(headers: &HeaderMap, started: u64) -> Result<From, Problem> {
    if !headers.contains_key("last-event-id") {
        return Ok(From::Now);
    }
    let id = text(headers, "last-event-id").and_then(|id| id.split_once('.'));
    let parsed = id.and_then(|(start, number)| Some((start.parse::<u64>().ok()?, number.parse::<u64>().ok()?)));
    match parsed {
        Some((start, number)) if start == started => Ok(From::After(number)),
        Some(_) => Ok(From::AnotherStart),
        None => Err(Problem::new(Code::BadHeader, "Last-Event-ID must be the id of an event of this stream")),
    }
}

/// `Last-Event-ID` of one twin's stream is a revision of it: that is the same whichever node tells of it, and when.
fn revision(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if !headers.contains_key("last-event-id") {
        return Ok(None);
    }
    // An id of the stream of all twins is no revision of this one: beyond any, it begins with a gap.
    let of_all = |id: &str| id.split_once('.').is_some_and(|(a, b)| a.parse::<u64>().and(b.parse::<u64>()).is_ok());
    let id = text(headers, "last-event-id").and_then(|id| if of_all(id) { Some(u64::MAX) } else { id.parse().ok() });
    let problem =
        || Problem::new(Code::BadHeader, "Last-Event-ID must be the id of an event of this stream: a revision");
    id.map(Some).ok_or_else(problem)
}

/// Follows one twin. What a reader missed comes from the journal, over restarts of the node, too.
pub(super) async fn of_twin(
    caller: Caller,
    At((namespace, name)): At<Id>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Watch)?;
    let after = revision(&headers)?;
    // Before the journal is read: what is not in that yet comes here.
    let watch = caller.server.watch(Some(&service), None);
    let last = if let Some(after) = after {
        after
    } else {
        let past = caller.server.past_events(&service, u64::MAX).await;
        past.map_err(|failure| caller.server.problem(&failure))?.newest
    };
    let one = One { service, last, told: 0, misses: after.is_some() };
    Ok(sse(follow(caller, watch, VecDeque::new(), Some(one))?))
}

/// Follows every service twin.
pub(super) async fn of_all(caller: Caller, headers: HeaderMap) -> Result<Response, Problem> {
    caller.operates("twin", "", "watch")?;
    let from = resume(&headers, caller.server.started())?;
    let watch = caller.server.watch(None, after(from));
    let started = caller.server.started();
    let missed = (from == From::AnotherStart)
        .then(|| gap("the node was started again since", &format!("{started}.{}", watch.after())));
    Ok(sse(follow(caller, watch, missed.into_iter().collect(), None)?))
}

fn after(from: From) -> Option<u64> {
    match from {
        From::After(number) => Some(number),
        From::Now | From::AnotherStart => None,
    }
}

/// Events as they are committed. A reader that falls behind what is kept hears of the gap and goes on after it, unless
/// the journal has what it missed; nothing is held for it, so a slow one costs what its socket buffers.
fn follow(
    caller: Caller,
    watch: Watch,
    ready: VecDeque<Event>,
    one: Option<One>,
) -> Result<impl Stream<Item = Result<Event, Infallible>> + use<>, Problem> {
    let follow = Follow {
        pass: Pass::new(Arc::clone(&caller.server), &caller.identity),
        open: Open::new(caller.server)?,
        watch,
        ready,
        one,
        over: false,
    };
    Ok(futures_util::stream::unfold(follow, Follow::next))
}

struct Follow {
    open: Open,
    watch: Watch,
    pass: Pass,
    /// To be sent before anything else.
    ready: VecDeque<Event>,
    /// The twin, if it is one that is followed.
    one: Option<One>,
    over: bool,
}

/// How far the stream of one twin has come.
struct One {
    service: ServiceId,
    /// The newest revision sent, or the one to go on after.
    last: u64,
    /// Events up to here came from the journal; they may come once more from memory.
    told: u64,
    /// Whether what comes next is in the journal.
    misses: bool,
}

impl One {
    /// The next part of what was missed; says so if some of it is gone. If it cannot be read now the stream ends, and its
    /// reader comes again.
    async fn recall(&mut self, server: &Server) -> Result<VecDeque<Event>, Problem> {
        let past = match server.past_events(&self.service, self.last).await {
            Ok(past) => past,
            Err(Failure::Rejected(Rejection::Gone { oldest_revision, .. })) => {
                self.last = oldest_revision.saturating_sub(1).max(self.last + 1);
                return Ok([gap("what came after it is no longer in the journal", &self.last.to_string())].into());
            }
            Err(failure) => return Err(server.problem(&failure)),
        };
        if self.last > past.newest {
            (self.last, self.misses) = (past.newest, false);
            return Ok([gap("the twin has not come as far as that event", &self.last.to_string())].into());
        }
        (self.last, self.told) = (past.upto, past.upto);
        self.misses = past.upto < past.newest;
        let event = |Retold { revision, at, event }| {
            cloud_event(&revision.to_string(), self.service.key(), revision, at, &event)
        };
        Ok(past.events.into_iter().map(event).collect())
    }
}

impl Follow {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.over {
            return None;
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(self.pass_on(event).await);
            }
            if let Some(one) = self.one.as_mut().filter(|one| one.misses) {
                match one.recall(&self.open.server).await {
                    Ok(events) => self.ready = events,
                    Err(problem) => return Some((Ok(end(&problem)), Self { over: true, ..self })),
                }
                continue;
            }
            let next = tokio::select! {
                next = self.watch.next() => next,
                problem = self.pass.over() => return Some((Ok(end(&problem)), Self { over: true, ..self })),
                () = self.open.server.stopping() => return Some((Ok(end(&stopping())), Self { over: true, ..self })),
            };
            let started = self.open.server.started();
            let event = match (next, &mut self.one) {
                (Ok(published), _) if published.kind != Service::KIND => continue,
                (Ok(published), Some(one)) if published.revision <= one.told => continue,
                (Ok(published), one) => {
                    let Published { number, key, revision, at, event, .. } = &*published;
                    let id = match one {
                        Some(one) => {
                            one.last = one.last.max(*revision);
                            revision.to_string()
                        }
                        None => format!("{started}.{number}"),
                    };
                    cloud_event(&id, key, *revision, *at, event)
                }
                (Err(Behind { .. }), Some(one)) => {
                    one.misses = true;
                    continue;
                }
                (Err(Behind { .. }), None) => {
                    gap("events were dropped before they were read", &format!("{started}.{}", self.watch.after()))
                }
            };
            return Some(self.pass_on(event).await);
        }
    }

    /// Sends an event, if whoever reads it still may.
    async fn pass_on(mut self, event: Event) -> (Result<Event, Infallible>, Self) {
        match self.pass.check().await {
            Ok(()) => (Ok(event), self),
            Err(problem) => (Ok(end(&problem)), Self { over: true, ..self }),
        }
    }
}

fn stopping() -> Problem {
    Problem::new(Code::Stopping, "the node is stopping; connect again with Last-Event-ID")
}

/// The last event of a stream that the node ends.
fn end(why: &Problem) -> Event {
    let data = json!({ "reason": why.detail, "code": why.code.row().name });
    Event::default().event("end").data(data.to_string())
}

/// Says that events are missing; its id is where the stream goes on.
fn gap(why: &str, id: &str) -> Event {
    let data = json!({ "reason": why, "hint": "read the present state of the twins you follow, then go on" });
    Event::default().id(id).event("gap").data(data.to_string())
}

/// An event in the JSON format of CloudEvents 1.0.
fn cloud_event(id: &str, key: &Key, revision: u64, at: Timestamp, event: &twin::Event) -> Event {
    let data: Value = serde_json::from_slice(&event.data).unwrap_or(Value::Null);
    let body = json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("/api/v1/twins/{key}"),
        "type": event.name,
        "subject": key.as_str(),
        "time": at.to_string(),
        "datacontenttype": "application/json",
        "revision": revision,
        "data": data,
    });
    Event::default().id(id).event(&*event.name).data(body.to_string())
}

/// Hands an instance its commands as they come, each once on one stream; what was handed over counts as delivered. What
/// was not acknowledged is handed over again by the next stream.
pub(super) async fn commands(
    caller: Caller,
    At((namespace, name, instance)): At<(String, String, String)>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    caller.speak_for(&instance)?;
    let watch = caller.server.watch(Some(&service), None);
    let header = caller.header();
    let open = Open::new(Arc::clone(&caller.server))?;
    // All that can be: what stays unacknowledged must not hide what comes after it.
    let next = NextCommands { instance: instance.into(), limit: u16::try_from(COMMANDS_LIVE_MAX).unwrap_or(u16::MAX) };
    // The first look is made before the answer begins, so that a refusal is a proper one.
    let ready = caller.ask(&service, next.clone()).await?;
    let mut hand = Hand {
        pass: Pass::new(caller.server, &caller.identity),
        open,
        watch,
        service,
        header,
        next,
        ready: VecDeque::new(),
        handed: Vec::new(),
        over: false,
    };
    hand.take(ready);
    Ok(sse(futures_util::stream::unfold(hand, Hand::next)))
}

struct Hand {
    open: Open,
    watch: Watch,
    pass: Pass,
    service: ServiceId,
    header: Header,
    next: NextCommands,
    ready: VecDeque<DeliveryView>,
    /// What the last look saw: handed over on this stream, or about to be.
    handed: Vec<u64>,
    over: bool,
}

impl Hand {
    /// The twin answers what is unacknowledged each time; here it is handed over once.
    fn take(&mut self, seen: Vec<DeliveryView>) {
        let handed = std::mem::replace(&mut self.handed, seen.iter().map(|command| command.id).collect());
        self.ready.extend(seen.into_iter().filter(|command| !handed.contains(&command.id)));
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.over {
            return None;
        }
        loop {
            if let Err(problem) = self.pass.check().await {
                return Some((Ok(end(&problem)), Self { over: true, ..self }));
            }
            if let Some(command) = self.ready.pop_front() {
                let data = serde_json::to_string(&command).unwrap_or_default();
                let event = Event::default().id(command.id.to_string()).event("command").data(data);
                return Some((Ok(event), self));
            }
            tokio::select! {
                woken = self.watch.next() => drop(woken),
                () = tokio::time::sleep(LOOK_EVERY) => {}
                problem = self.pass.over() => return Some((Ok(end(&problem)), Self { over: true, ..self })),
                () = self.open.server.stopping() => return Some((Ok(end(&stopping())), Self { over: true, ..self })),
            }
            match self.look().await {
                Ok(commands) => self.take(commands),
                Err(Failure::Overloaded { .. } | Failure::Expired | Failure::Backoff { .. }) => {}
                Err(failure) => {
                    let problem = self.open.server.problem(&failure);
                    tracing::debug!(service = %self.service, %problem, "a command stream ended");
                    return Some((Ok(end(&problem)), Self { over: true, ..self }));
                }
            }
        }
    }

    async fn look(&self) -> Result<Vec<DeliveryView>, Failure> {
        let server = &self.open.server;
        let deadline = server.now().after(Duration::from_secs(server.config.deadline_s));
        let header = self.header.clone().with_deadline(deadline);
        server.ask(&self.service, self.next.clone(), header, None).await
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_stream_goes_on_where_it_ended_unless_the_node_was_started_again() {
        let with =
            |id: &'static str| HeaderMap::from_iter([("last-event-id".parse().unwrap(), HeaderValue::from_static(id))]);
        assert_eq!(resume(&HeaderMap::new(), 7), Ok(From::Now));
        assert_eq!(resume(&with("7.12"), 7), Ok(From::After(12)));
        assert_eq!(resume(&with("6.12"), 7), Ok(From::AnotherStart));
        assert_eq!(resume(&with("twelve"), 7).unwrap_err().code, Code::BadHeader);
    }
}
