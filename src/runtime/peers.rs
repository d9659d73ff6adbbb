//! What runtimes that share a store ask each other beside the calls to twins: to find, to follow, to read what is stored.

use std::{collections::HashMap, sync::Arc, time::Duration};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Found, Runtime,
    events::{Fed, Hub, Published, Source, Wanted},
    shared::Shared,
};
use crate::{
    cluster::{Served, ServedTo},
    model::{Key, Outcome, Timestamp},
    store::{self, Address, Load, Loaded, Prefix, Slot},
    twin::{Answer, Event, Failure, from_bytes, to_bytes},
};

/// Longest time an answer with events is held back until there are some.
const HELD: Duration = Duration::from_secs(10);
/// Most events in one answer.
const FED_MAX: usize = 256;
/// How often it is looked for nodes that came or went.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon a node that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a node may take to find twins.
const FIND_WITHIN: Duration = Duration::from_secs(10);

/// What one runtime asks another.
#[derive(Serialize, Deserialize)]
pub(super) enum Question {
    /// Twins of a kind, in the slots of that runtime.
    Find { kind: CompactString, terms: Vec<CompactString>, after: Option<Key>, limit: usize },
    /// Events, or signals, after a number of one start, when there are any.
    Feed { of: Feed, after: Option<(u64, u64)>, wanted: Option<Vec<(CompactString, Key)>> },
    /// What is stored of a twin.
    Load { kind: CompactString, key: Key, core: bool, pages: Vec<CompactString>, prefix: Option<Run> },
}

/// What nodes tell each other as it comes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Feed {
    Events,
    Signals,
}

/// A run of pages, see [`Prefix`].
#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    prefix: CompactString,
    after: Option<CompactString>,
    limit: usize,
}

type Pairs = Vec<(CompactString, Vec<u8>)>;

/// One event on its way.
#[derive(Serialize, Deserialize)]
struct Sent {
    kind: CompactString,
    key: Key,
    revision: u64,
    at: Timestamp,
    name: String,
    data: Vec<u8>,
}

/// Events as they travel.
#[derive(Serialize, Deserialize)]
struct FedAnswer {
    start: u64,
    upto: u64,
    gap: bool,
    events: Vec<Sent>,
}

fn lost(outcome: Outcome, cause: &str) -> Failure {
    Failure::Lost { outcome, cause: cause.into() }
}

fn unreadable() -> Failure {
    lost(Outcome::NotApplied, "what another node sent cannot be read")
}

/// The error of a read, as the reader of another runtime hears it.
fn unread(error: &store::Error) -> Failure {
    lost(Outcome::NotApplied, &error.to_string())
}

impl Runtime {
    /// Takes a question that another runtime asked this one, whatever slots it owns. Call it within a tokio runtime.
    pub fn serve_node(&self, call: &[u8], done: ServedTo) {
        let answer = |answer: Vec<u8>| Served::Answer(answer);
        match from_bytes::<Question>(call) {
            Err(_) => done(answer(to_bytes(&Err::<(), _>(unreadable())))),
            Ok(Question::Find { kind, terms, after, limit }) => {
                let runtime = self.clone();
                tokio::spawn(async move {
                    let found = runtime.find_here(&kind, terms, after, limit).await;
                    let found = found.map_err(|error| unread(&error));
                    let pairs = found.map(|(found, more)| {
                        (found.into_iter().map(|Found { key, terms }| (key, terms)).collect::<Vec<_>>(), more)
                    });
                    done(answer(to_bytes(&pairs)));
                });
            }
            Ok(Question::Feed { of, after, wanted }) => {
                let shared = Arc::clone(&self.inner.shared);
                tokio::spawn(async move {
                    done(answer(to_bytes(&Ok::<_, Failure>(feed(&shared, of, after, wanted.as_deref()).await))));
                });
            }
            // Goes to the owner of a slot, not to a node.
            Ok(Question::Load { .. }) => done(Served::Elsewhere),
        }
    }

    /// Brings events and signals of the other runtimes here for as long as somebody waits for them. Never ends; run it
    /// beside the runtime.
    pub async fn follow_others(&self) {
        let Some(cluster) = &self.inner.shared.cluster else { return std::future::pending().await };
        let mut followed: HashMap<CompactString, [Follower; 2]> = HashMap::new();
        let mut sources: Source = 0;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let others = cluster.others();
            followed.retain(|name, _| others.contains(name));
            for name in others {
                followed.entry(name).or_insert_with_key(|name| {
                    sources += 1;
                    [Feed::Events, Feed::Signals].map(|of| {
                        Follower(tokio::spawn(follow(Arc::clone(&self.inner.shared), of, name.clone(), sources)))
                    })
                });
            }
            look.tick().await;
        }
    }

    /// Asks every other node the same, and waits for all; each answers for itself.
    pub(super) async fn ask_others<R: serde::de::DeserializeOwned>(
        &self,
        ask: &Question,
    ) -> Vec<(CompactString, Answer<R>)> {
        let Some(cluster) = &self.inner.shared.cluster else { return Vec::new() };
        let call = to_bytes(ask);
        let asked: Vec<_> = cluster
            .others()
            .into_iter()
            .map(|node| {
                let answer = sent(&self.inner.shared, &node, call.clone(), FIND_WITHIN);
                (node, answer)
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (node, answer) in asked {
            answers.push((node, answer.await));
        }
        answers
    }
}

impl Shared {
    /// Takes a read that another runtime forwarded because this one owns the twin's slot.
    pub(super) fn serve_load(self: &Arc<Self>, slot: Slot, call: &[u8], done: ServedTo) {
        let Ok(Question::Load { kind, key, core, pages, prefix }) = from_bytes::<Question>(call) else {
            return done(Served::Answer(to_bytes(&Err::<(), _>(unreadable()))));
        };
        let Some(store) = &self.store else { return done(Served::Elsewhere) };
        let prefix = prefix.map(|Run { prefix, after, limit }| Prefix { prefix, after, limit });
        let address = Arc::new(Address { kind, key });
        let shared = Arc::clone(self);
        store.load(
            Load { address, core, pages, prefix, under: self.under(slot) },
            Box::new(move |loaded| {
                // Whoever lost the slot meanwhile may have read what is over.
                if !shared.slots.is_open(slot) {
                    return done(Served::Elsewhere);
                }
                let loaded = loaded.map(|Loaded { core, pages }| (core, pages)).map_err(|error| unread(&error));
                done(Served::Answer(to_bytes(&shared.leased(loaded, || true))));
            }),
        );
    }

    /// Reads a twin as its owner's store has it, wherever that is.
    pub(super) async fn load_at_owner(&self, load: Load) -> Answer<Loaded> {
        let Some(cluster) = &self.cluster else { return Err(Failure::Stopping) };
        let Load { address, core, pages, prefix, under: _ } = load;
        let prefix = prefix.map(|Prefix { prefix, after, limit }| Run { prefix, after, limit });
        let slot = self.slots.of_key(&address.key);
        let (kind, key) = (address.kind.clone(), address.key.clone());
        let call = super::remote::read_call(&to_bytes(&Question::Load { kind, key, core, pages, prefix }));
        let (tell, told) = oneshot::channel();
        cluster.forward(slot, call, None, Box::new(move |answer| drop(tell.send(answer))));
        let (core, pages) = read::<(Option<Vec<u8>>, Pairs)>(told.await)?;
        Ok(Loaded { core, pages })
    }
}

/// What another runtime answered, if it did.
fn read<R: serde::de::DeserializeOwned>(
    told: Result<Result<Vec<u8>, Failure>, oneshot::error::RecvError>,
) -> Answer<R> {
    let bytes = told.map_err(|_| lost(Outcome::NotApplied, "the other node did not answer"))??;
    from_bytes::<Answer<R>>(&bytes).map_err(|_| unreadable())?
}

/// Sends a question to one node now; the future is its answer.
fn sent<R: serde::de::DeserializeOwned>(
    shared: &Shared,
    node: &str,
    call: Vec<u8>,
    within: Duration,
) -> impl Future<Output = Answer<R>> + use<R> {
    let (tell, told) = oneshot::channel();
    if let Some(cluster) = &shared.cluster {
        cluster.call(node, call, within, Box::new(move |answer| drop(tell.send(answer))));
    }
    async move { read(told.await) }
}

impl Feed {
    fn hub(self, shared: &Shared) -> &Hub {
        match self {
            Self::Events => &shared.hub,
            Self::Signals => &shared.signals.hub,
        }
    }
}

/// Events or signals of this runtime for another one, as soon as there are some.
async fn feed(
    shared: &Shared,
    of: Feed,
    after: Option<(u64, u64)>,
    wanted: Option<&[(CompactString, Key)]>,
) -> FedAnswer {
    let hub = of.hub(shared);
    let mut newest = hub.newest();
    let start = shared.started().unix_ms();
    let now = *newest.borrow();
    let (from, gap) = match after {
        Some((of, after)) if of == start => (after, false),
        Some(_) | None => (now, true),
    };
    let wants = |event: &Published| {
        wanted.is_none_or(|wanted| wanted.iter().any(|(kind, key)| *kind == event.kind && *key == event.key))
    };
    let until = tokio::time::Instant::now() + HELD;
    loop {
        newest.borrow_and_update();
        let Fed { events, upto, gap: missed } = hub.after(from, FED_MAX, wants);
        let over = tokio::time::Instant::now() >= until || shared.is_stopping();
        if !events.is_empty() || gap || missed || over {
            let events = events.iter().map(|event| Sent {
                kind: event.kind.into(),
                key: event.key.clone(),
                revision: event.revision,
                at: event.at,
                name: event.event.name.clone().into_owned(),
                data: event.event.data.to_vec(),
            });
            return FedAnswer { start, upto, gap: gap || missed, events: events.collect() };
        }
        tokio::time::timeout_at(until, newest.changed()).await.ok();
    }
}

/// Ends its task when it is dropped.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells here what another node tells, for as long as anybody here wants to know.
async fn follow(shared: Arc<Shared>, of: Feed, node: CompactString, source: Source) {
    let mut wanted = of.hub(&shared).wanted();
    let mut after = None;
    loop {
        let Ok(wants) = wanted.wait_for(|wanted| !wanted.is_empty()).await.map(|wanted| wanted.clone()) else { return };
        let Wanted { all, twins } = wants;
        let ask = Question::Feed { of, after, wanted: (all == 0).then(|| twins.into_keys().collect()) };
        let answer = sent::<FedAnswer>(&shared, &node, to_bytes(&ask), HELD * 2);
        let answer = tokio::select! {
            answer = answer => answer,
            // Asked anew, from the same number, so that nothing is missed of what is wanted from now on.
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match answer {
            Ok(FedAnswer { start, upto, gap, events }) => {
                after = Some((start, upto));
                if gap {
                    match of {
                        Feed::Events => shared.hub.gap(source),
                        Feed::Signals => shared.signals.tell_all(),
                    }
                }
                for Sent { kind, key, revision, at, name, data } in events {
                    let Some(kind) = shared.office.name_of(&kind) else { continue };
                    let event = Event { name: name.into(), data: data.into() };
                    match of {
                        Feed::Events => {
                            shared.hub.publish(source, Published { number: 0, kind, key, revision, at, event });
                        }
                        Feed::Signals => shared.signals.tell(&(kind, key)),
                    }
                }
            }
            Err(failure) => {
                tracing::debug!(%node, %failure, "another node does not say what its twins do; it is asked again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        if wanted.borrow().is_empty() {
            // Whoever comes next begins with a gap.
            after = None;
        }
    }
}
