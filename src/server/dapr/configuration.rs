//! Configuration as Dapr's clients ask for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ahash::HashMap;
use axum::http::StatusCode;
use compact_str::CompactString;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use super::{Block, KEYS_MAX, Refusal, Session, app::App};
use crate::{
    capability::{
        components::Kind,
        configuration::{EVENT, Get, Item, KEY_BYTES_MAX, KEYS_AT_ONCE_MAX},
    },
    model::ServiceId,
    runtime::Watch,
    server::{
        channel::{Channel, FOLLOWED_MAX, Protocol},
        pass::Pass,
    },
};

/// Subscriptions of one service at once.
const SUBSCRIPTIONS_MAX: usize = 256;
/// The code of a subscription that cannot be.
const CODE: &str = "ERR_CONFIGURATION_SUBSCRIBE";
/// How long a subscription rests whose application did not take a change, or whose service may not read it.
const PAUSE: Duration = Duration::from_secs(1);

/// One key as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its value.
    pub value: String,
    /// The version in which it changed last.
    pub version: String,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Keys by name.
pub type Items = BTreeMap<String, Shown>;

fn shown(item: Item) -> (String, Shown) {
    let metadata = item.metadata.into_iter().map(|(name, value)| (name.into(), value)).collect();
    (item.key.into(), Shown { value: item.value, version: item.version.to_string(), metadata })
}

/// Open subscriptions, by service and id.
#[derive(Default)]
pub struct Subscriptions(Mutex<HashMap<(ServiceId, String), Open>>);

struct Open {
    /// The key it was opened with.
    key_id: CompactString,
    end: watch::Sender<bool>,
}

impl Subscriptions {
    fn open(&self, service: &ServiceId, key_id: &str) -> Result<(String, watch::Receiver<bool>), Refusal> {
        let mut open = self.0.lock();
        if open.keys().filter(|(owner, _)| owner == service).count() >= SUBSCRIPTIONS_MAX {
            let message = format!("a service has at most {SUBSCRIPTIONS_MAX} configuration subscriptions at once");
            return Err(Refusal::full(CODE, message));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let (end, ended) = watch::channel(false);
        open.insert((service.clone(), id.clone()), Open { key_id: key_id.into(), end });
        Ok((id, ended))
    }

    /// Ends a subscription; whether there was one.
    pub fn end(&self, service: &ServiceId, id: &str) -> bool {
        let ended = self.0.lock().remove(&(service.clone(), id.to_owned()));
        ended.map(|open| open.end.send_replace(true)).is_some()
    }

    /// Ends every subscription of a service that was opened with this key.
    pub fn end_all(&self, service: &ServiceId, key_id: &str) {
        self.0.lock().retain(|(owner, _), open| {
            let stays = owner != service || open.key_id != key_id;
            if !stays {
                open.end.send_replace(true);
            }
            stays
        });
    }
}

/// Follows some keys of the configuration.
pub struct Following {
    session: Arc<Session>,
    /// Which subscription it is.
    pub id: String,
    store: String,
    keys: Vec<String>,
    watch: Watch,
    pass: Pass,
    ended: watch::Receiver<bool>,
    /// The version up to which everything was told.
    told: u64,
}

impl Session {
    /// Reads some keys, or all of them.
    pub async fn configuration_get(&self, store: &str, keys: &[String]) -> Result<Items, Refusal> {
        self.component(Block::ConfigurationGet, store, Kind::Configuration).await?;
        Ok(self.configuration_items(store, keys).await?.1)
    }

    /// The keys, and the version that was the newest when the first of them were read: each that changed later did so in
    /// a later one.
    async fn configuration_items(&self, store: &str, keys: &[String]) -> Result<(u64, Items), Refusal> {
        if keys.is_empty() {
            let (version, items) = self.ask_for(Block::ConfigurationGet, store, Get { keys: Vec::new() }).await?;
            return Ok((version, items.into_iter().map(shown).collect()));
        }
        self.check_keys(store, keys)?;
        let (mut oldest, mut all) = (u64::MAX, Items::new());
        for keys in keys.chunks(KEYS_AT_ONCE_MAX) {
            let get = Get { keys: keys.iter().map(Into::into).collect() };
            let (version, items) = self.ask_for(Block::ConfigurationGet, store, get).await?;
            oldest = oldest.min(version);
            all.extend(items.into_iter().map(shown));
        }
        Ok((oldest, all))
    }

    /// Refuses more keys than are read at once, and such as no twin has.
    fn check_keys(&self, store: &str, keys: &[String]) -> Result<(), Refusal> {
        let longest = keys.iter().map(String::len).max().unwrap_or_default();
        self.within(Block::ConfigurationGet, store, "keys of a request", KEYS_MAX, keys.len())?;
        self.within(Block::ConfigurationGet, store, "bytes of a key", KEY_BYTES_MAX, longest)
    }

    /// Follows some keys, or all of them, from now on.
    pub async fn configuration_follow(self, store: &str, keys: Vec<String>) -> Result<Following, Refusal> {
        self.component(Block::ConfigurationGet, store, Kind::Configuration).await?;
        let watch = self.server.watch(Some(&self.service), None);
        let (told, _) = self.configuration_items(store, &keys).await?;
        let (id, ended) = self.server.subscriptions.open(&self.service, self.key_id())?;
        let pass = Pass::new(Arc::clone(&self.server), &self.identity);
        Ok(Following { session: Arc::new(self), id, store: store.to_owned(), keys, watch, pass, ended, told })
    }

    /// Follows some keys, or all of them, on behalf of the application, which is told of changes over its channel until
    /// that ends; answers with the subscription's id.
    pub async fn configuration_push(self, store: &str, keys: Vec<String>) -> Result<String, Refusal> {
        self.component(Block::ConfigurationGet, store, Kind::Configuration).await?;
        let channel = self.server.channels.opened_with(&self.service, self.key_id());
        let channel = channel.filter(|channel| channel.protocol == Protocol::Http).ok_or_else(|| Refusal {
            grpc: tonic::Code::FailedPrecondition,
            ..Refusal::internal(
                "ERR_APP_CHANNEL_NIL",
                "no application of this service that speaks HTTP has a channel open, over which it would be told of changes: \
                 'twin run --app-port' opens one; over gRPC, SubscribeConfiguration needs none"
                    .to_owned(),
            )
        })?;
        let full = || Refusal::full(CODE, format!("an instance has at most {FOLLOWED_MAX} such subscriptions at once"));
        let places = (channel.follow_permit().ok_or_else(full)?, self.server.stream()?);
        let following = self.configuration_follow(store, keys).await?;
        let id = following.id.clone();
        tokio::spawn(async move {
            following.push(&channel).await;
            drop(places);
        });
        Ok(id)
    }
}

/// What an application is told of one key.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    items: &'a Items,
}

impl Following {
    /// Waits for keys that change; `None` once the subscription is over.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped: keys that changed are read anew.
    pub async fn next(&mut self) -> Result<Option<Items>, Refusal> {
        while self.changed().await? {
            let (version, items) = self.news().await?;
            self.told = version;
            if !items.is_empty() {
                return Ok(Some(items));
            }
        }
        Ok(None)
    }

    /// Waits until something has changed; `false` once the subscription is over.
    async fn changed(&mut self) -> Result<bool, Refusal> {
        loop {
            let server = Arc::clone(&self.session.server);
            tokio::select! {
                published = self.watch.next() => match published {
                    Ok(published) if published.event.name != EVENT => {}
                    // Whoever fell behind reads what is there now.
                    Ok(_) | Err(_) => return Ok(true),
                },
                _ = self.ended.wait_for(|ended| *ended) => return Ok(false),
                () = server.stopping() => return Err(Refusal::from(server.ready().err().unwrap_or_else(|| {
                    crate::server::problem::Problem::new(crate::server::problem::Code::Stopping, "the node is stopping")
                }))),
                problem = self.pass.over() => return Err(problem.into()),
            }
        }
    }

    /// Reads what was not told yet, and the version up to which that is; rights are asked anew.
    async fn news(&mut self) -> Result<(u64, Items), Refusal> {
        self.pass.check().await?;
        let told = self.told;
        let (version, mut items) = self.session.configuration_items(&self.store, &self.keys).await?;
        items.retain(|_, item| item.version.parse::<u64>().is_ok_and(|version| version > told));
        Ok((version, items))
    }

    /// Tells an application of changes until its channel, its key or the subscription ends.
    async fn push(mut self, channel: &Arc<Channel>) {
        let (server, mut ended) = (Arc::clone(&self.session.server), self.ended.clone());
        tokio::select! {
            () = self.push_on(channel) => {}
            _ = ended.wait_for(|ended| *ended) => {}
            () = channel.over() => {}
            () = server.stopping() => {}
        }
    }

    async fn push_on(&mut self, channel: &Arc<Channel>) {
        let (app, mut is_behind, mut is_said) = (App(Arc::clone(channel)), false, false);
        loop {
            let told = match if is_behind { Ok(true) } else { self.changed().await } {
                Ok(true) => self.tell(&app).await,
                Ok(false) => return,
                Err(refusal) => Err(refusal),
            };
            let (service, id) = (&self.session.service, &self.id);
            match told {
                Ok(all) => (is_behind, is_said) = (!all, false),
                Err(refusal) if refusal.grpc == tonic::Code::Unauthenticated => {
                    tracing::warn!(reason = refusal.message, %service, id, "a subscription to configuration ends");
                    return;
                }
                Err(refusal) => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::warn!(reason = refusal.message, %service, id, "a subscription to configuration rests; it is tried again");
                    }
                    is_behind = true;
                }
            }
            if is_behind {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Tells an application what is new, each key as it is then and while its service has the right to it; whether it took
    /// all of that.
    async fn tell(&mut self, app: &App) -> Result<bool, Refusal> {
        let (version, news) = self.news().await?;
        let service = self.session.service.clone();
        for key in news.into_keys() {
            self.pass.check().await?;
            let (_, now) = self.session.configuration_items(&self.store, std::slice::from_ref(&key)).await?;
            if now.is_empty() {
                continue;
            }
            match app.tell_configuration(&self.store, &key, &Told { id: &self.id, items: &now }).await {
                Ok(status) if status.is_success() => {}
                Ok(StatusCode::NOT_FOUND) => {
                    tracing::warn!(key, %service, "an application has no route for a key of its configuration, which is not told");
                }
                Ok(status) => {
                    tracing::debug!(%status, key, %service, "an application did not take a change, which is told again");
                    return Ok(false);
                }
                Err(error) => {
                    tracing::debug!(%error, key, %service, "an application was not told of a change, which is told again");
                    return Ok(false);
                }
            }
        }
        self.told = version;
        Ok(true)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.session.server.subscriptions.end(&self.session.service, &self.id);
    }
}
