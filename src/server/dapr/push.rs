//! Topics pushed to an application, as long as its channel is open.

use std::{sync::Arc, time::Duration};

use ahash::HashMap;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinSet};

use super::{
    Session,
    app::{App, Subscribed},
    pubsub::Taking,
};
use crate::{
    model::ServiceId,
    server::{Phase, Server, channel::Channel},
    twin::{Failure, Rejection},
};

/// How long a subscription rests that could not begin, or was refused.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an application that does not answer is left alone.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Events that tell of declared subscriptions begin so.
const DECLARED: &str = "twin.subscription.";
/// Messages on their way to an application for each that it may work on at once.
const AHEAD: usize = 2;

/// What is pushed to applications at present, by service.
#[derive(Debug, Default)]
pub struct Pushed(Mutex<HashMap<ServiceId, Vec<Arc<Subscribed>>>>);

impl Pushed {
    /// The subscriptions of a service's applications, each once.
    pub fn of(&self, service: &ServiceId) -> Vec<Arc<Subscribed>> {
        let mut pushed = self.0.lock().get(service).cloned().unwrap_or_default();
        pushed.sort_by(|one, other| one.place().cmp(&other.place()));
        pushed.dedup_by(|one, other| one.place() == other.place());
        pushed
    }
}

/// Keeps a subscription among those that are pushed.
struct Listed<'a> {
    pushed: &'a Pushed,
    service: &'a ServiceId,
    subscribed: Arc<Subscribed>,
}

impl<'a> Listed<'a> {
    fn new(pushed: &'a Pushed, service: &'a ServiceId, subscribed: &Arc<Subscribed>) -> Self {
        let subscribed = Arc::clone(subscribed);
        pushed.0.lock().entry(service.clone()).or_default().push(Arc::clone(&subscribed));
        Self { pushed, service, subscribed }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut all = self.pushed.0.lock();
        let Some(pushed) = all.get_mut(self.service) else { return };
        pushed.retain(|known| !Arc::ptr_eq(known, &self.subscribed));
        if pushed.is_empty() {
            all.remove(self.service);
        }
    }
}

/// Pushes to an application what it states that it wants and what its service has declared, until the node stops or it
/// leaves, and the last of it is settled.
pub async fn run(session: Session, channel: Arc<Channel>) {
    let app = App(channel);
    let mut changes = session.server.watch(Some(&session.service), None);
    let stated = loop {
        let asked = tokio::select! {
            asked = app.subscriptions() => asked,
            () = app.ending(&session.server) => return,
        };
        match asked {
            Ok(stated) => break stated,
            Err(error) => {
                tracing::debug!(%error, service = %session.service, "an application was not asked for its subscriptions");
                if app.rests(&session.server, ASK_AGAIN).await {
                    return;
                }
            }
        }
    };
    let mut pushing = JoinSet::new();
    let mut under_way = Vec::<(Arc<Subscribed>, AbortHandle)>::new();
    while !app.is_ending(&session.server) {
        // What the application states counts before what is declared of the same topic.
        let declared = match session.declared().await {
            Ok(declared) => declared,
            Err(failure) => {
                tracing::warn!(%failure, service = %session.service, "declared subscriptions are not known; they are asked for again");
                app.rests(&session.server, PAUSE).await;
                continue;
            }
        };
        under_way.retain(|(_, task)| !task.is_finished());
        let mut wanted: Vec<_> = stated.iter().cloned().chain(declared).collect();
        wanted.sort_by(|one, other| one.place().cmp(&other.place()));
        wanted.dedup_by(|one, other| one.place() == other.place());
        under_way.retain(|(known, task)| {
            let stays = wanted.iter().any(|subscribed| *subscribed == **known);
            if !stays {
                task.abort();
            }
            stays
        });
        wanted.retain(|subscribed| under_way.iter().all(|(known, _)| **known != *subscribed));
        for subscribed in wanted.into_iter().map(Arc::new) {
            let task = pushing.spawn(push(session.clone(), app.clone(), Arc::clone(&subscribed)));
            under_way.push((subscribed, task));
        }
        tokio::select! {
            // Whoever fell behind looks anew.
            () = async {
                while changes.next().await.is_ok_and(|published| !published.event.name.starts_with(DECLARED)) {}
            } => {}
            () = app.ending(&session.server) => {}
        }
        while pushing.try_join_next().is_some() {}
    }
    // Each settles what it has.
    while pushing.join_next().await.is_some() {}
}

impl App {
    /// Whether nothing new is pushed: the node stops, or the application leaves.
    fn is_ending(&self, server: &Server) -> bool {
        server.phase() == Phase::Stopping || self.0.is_over()
    }

    /// Waits until that is so.
    async fn ending(&self, server: &Server) {
        tokio::select! {
            () = server.stopping() => {}
            () = self.0.over() => {}
        }
    }

    /// Waits, and not for that; whether it is so.
    async fn rests(&self, server: &Server, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.ending(server)).await.is_ok()
    }
}

impl Session {
    /// What the service has declared, as far as it can be pushed.
    async fn declared(&self) -> Result<Vec<Subscribed>, Failure> {
        let declared = match self.server.subscriptions(&self.service, self.header()).await {
            // It may not have any.
            Err(Failure::Rejected(Rejection::Denied { .. })) => Vec::new(),
            declared => declared?,
        };
        let subscribed = declared.into_iter().filter_map(|subscription| {
            let name = subscription.name.clone();
            let subscribed = Subscribed::declared(subscription);
            subscribed
                .inspect_err(|reason| {
                    tracing::warn!(reason, %name, service = %self.service, "a declared subscription is not pushed");
                })
                .ok()
        });
        Ok(subscribed.collect())
    }
}

/// Pushes one topic, again and again should it end, until the node stops or the application leaves.
async fn push(session: Session, app: App, subscribed: Arc<Subscribed>) {
    let mut is_said = false;
    while !app.is_ending(&session.server) {
        let ahead = subscribed.concurrency * AHEAD;
        let ended = match session.clone().topic_take(subscribed.wanted.clone(), ahead).await {
            Ok(taking) => {
                let _listed = Listed::new(&session.server.pushed, &session.service, &subscribed);
                hand_over(taking, &app, &subscribed, &mut is_said).await
            }
            Err(refusal) => refusal.message,
        };
        let (service, topic) = (&session.service, &subscribed.wanted.topic);
        if !is_said && !app.is_ending(&session.server) {
            tracing::warn!(%service, topic, reason = ended, "a subscription of an application rests; it is tried again");
            is_said = true;
        }
        app.rests(&session.server, PAUSE).await;
    }
}

/// Hands messages over until that goes wrong or is over; what is being worked on is settled first.
async fn hand_over(mut taking: Taking, app: &App, subscribed: &Subscribed, is_said: &mut bool) -> String {
    let server = taking.server();
    let mut working = FuturesUnordered::new();
    let mut ended = None;
    loop {
        tokio::select! {
            handed = taking.next(), if ended.is_none() && working.len() < subscribed.concurrency => match handed {
                Ok(handed) => working.push(async move {
                    let id = handed.id.clone();
                    (id, app.deliver(handed, subscribed).await)
                }),
                Err(problem) => ended = Some(problem.detail.into_owned()),
            },
            Some((id, delivered)) = working.next(), if !working.is_empty() => match delivered {
                Ok(verdict) => {
                    *is_said = false;
                    taking.settle(&id, verdict).await;
                }
                // It was not tried.
                Err(unreached) => {
                    taking.give_back(&id);
                    ended = Some(unreached.to_string());
                }
            },
            () = app.ending(&server), if ended.is_none() => ended = Some("the node is stopping, or the application leaves".to_owned()),
        }
        if let Some(ended) = ended.take_if(|_| working.is_empty()) {
            taking.close().await;
            return ended;
        }
    }
}
