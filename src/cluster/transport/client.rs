//! The end of a stream that asks: one task for each other node connects, sends what waits, and hands out the answers.
//!
//! Calls of one link are in one table, with the time until which each waits. They have no timers of their own: as long as
//! there are some, the link's task looks through the table now and then.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tonic::{
    Request, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    CALL_BYTES_MAX, Config, MESSAGE_BYTES_MAX, PATH, PING_EVERY, VERSION, WINDOW_BYTES,
    frames::{AnswerFrame, AskFrame, Batch, FailedFrame, Hello, Kind, MovedFrame, OwnerFrame, SlotOwner, next_batch},
    host_of,
};
use crate::cluster::{
    Links,
    link::{Ask, Broken, Heard, Note, Peer, Reply, Whom},
};

/// Batches handed to the wire that it has not taken; the wire itself holds a window of bytes.
const WIRE_BATCHES: usize = 2;
/// How often it is looked for calls whose time is over: by so much they may wait too long.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// A link that has no stream and nothing to say for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The streams of one node to all others.
pub struct Transport {
    config: Arc<Config>,
    spawner: Handle,
    links: Mutex<HashMap<Peer, Link, ahash::RandomState>>,
    /// Number of the last call.
    last: AtomicU64,
}

/// The way to one node.
#[derive(Clone)]
struct Link {
    queue: mpsc::Sender<Outgoing>,
    pending: Arc<Pending>,
}

/// What waits to be sent.
enum Outgoing {
    Ask { id: u64, ask: Ask },
    Note(Note),
}

/// Calls of a link that have no answer yet, by their numbers.
#[derive(Default)]
struct Pending(Mutex<HashMap<u64, Waiting, ahash::RandomState>>);

struct Waiting {
    until: Instant,
    /// Whether a stream was given it.
    is_sent: bool,
    heard: Heard,
}

impl Pending {
    /// Takes a call in; hands it back if there are too many.
    fn add(&self, id: u64, until: Instant, heard: Heard, most: usize) -> Result<(), Heard> {
        let mut waiting = self.0.lock();
        if waiting.len() >= most {
            return Err(heard);
        }
        waiting.insert(id, Waiting { until, is_sent: false, heard });
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The call is given to a stream; `false` if nobody waits for it any more.
    fn send(&self, id: u64) -> bool {
        self.0.lock().get_mut(&id).is_some_and(|waiting| {
            waiting.is_sent = true;
            true
        })
    }

    /// Tells what became of a call, unless that was told.
    fn end(&self, id: u64, what: Result<Reply, Broken>) {
        let ended = self.0.lock().remove(&id);
        if let Some(ended) = ended {
            (ended.heard)(what);
        }
    }

    /// Tells of every call for which this holds that it will not be answered.
    fn end_all(&self, cause: &'static str, which: impl Fn(&Waiting) -> bool) {
        let ended: Vec<_> = self.0.lock().extract_if(|_, waiting| which(waiting)).collect();
        for (_, Waiting { is_sent, heard, .. }) in ended {
            heard(Err(if is_sent { Broken::Unanswered(cause.into()) } else { Broken::NotSent(cause.into()) }));
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.end_all("no answer before the deadline", |waiting| waiting.until <= now);
    }
}

impl Transport {
    /// Links of a node. Nothing is connected before it is needed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: Config) -> Self {
        let spawner = Handle::current();
        Self { config: Arc::new(config), spawner, links: Mutex::default(), last: AtomicU64::new(0) }
    }

    fn link(&self, peer: &Peer) -> Link {
        let mut links = self.links.lock();
        if let Some(link) = links.get(peer).filter(|link| !link.queue.is_closed()) {
            return link.clone();
        }
        links.retain(|_, link| !link.queue.is_closed());
        let (queue, waiting) = mpsc::channel(self.config.in_flight_max);
        let link = Link { queue, pending: Arc::default() };
        links.insert(peer.clone(), link.clone());
        self.spawner.spawn(run(Arc::clone(&self.config), peer.clone(), waiting, Arc::clone(&link.pending)));
        link
    }
}

impl Links for Transport {
    fn ask(&self, to: Peer, ask: Ask, heard: Heard) {
        if ask.call.len() > CALL_BYTES_MAX {
            return heard(Err(Broken::NotSent(format!("a call has at most {CALL_BYTES_MAX} bytes").into())));
        }
        let Link { queue, pending } = self.link(&to);
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + ask.within;
        if let Err(heard) = pending.add(id, until, heard, self.config.in_flight_max) {
            return heard(Err(Broken::Full));
        }
        if let Err(error) = queue.try_send(Outgoing::Ask { id, ask }) {
            pending.end(
                id,
                Err(match error {
                    mpsc::error::TrySendError::Full(_) => Broken::Full,
                    mpsc::error::TrySendError::Closed(_) => Broken::NotSent("the link was just given up".into()),
                }),
            );
        }
    }

    fn tell(&self, to: Peer, note: Note) {
        self.link(&to).queue.try_send(Outgoing::Note(note)).ok();
    }
}

/// Serves one link for as long as there is something to say.
async fn run(config: Arc<Config>, peer: Peer, mut waiting: mpsc::Receiver<Outgoing>, pending: Arc<Pending>) {
    let pending = Ends(pending);
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Connected for the first one that waits, which then goes first.
    while let Ok(Some(first)) = timeout(IDLE_MAX, waiting.recv()).await {
        let connected = {
            let mut connected = std::pin::pin!(timeout(config.connect_timeout, connect(&config, &peer)));
            loop {
                tokio::select! {
                    connected = &mut connected => break connected,
                    _ = sweep.tick() => pending.0.sweep(),
                }
            }
        };
        let cause: Arc<str> = match connected {
            Ok(Ok((send, answers))) => {
                if let Some(unsent) = speak(first, &mut waiting, &send, answers, &pending.0, &mut sweep).await {
                    fail(&unsent, &"the stream was just given up".into(), &pending.0);
                }
                pending.0.end_all("the stream to it broke", |waiting| waiting.is_sent);
                continue;
            }
            Ok(Err(cause)) => cause,
            Err(_) => "no connection in time".into(),
        };
        tracing::debug!(node = %peer.node, address = %peer.address, %cause, "another node is not reached");
        fail(&first, &cause, &pending.0);
        while let Ok(unsent) = waiting.try_recv() {
            fail(&unsent, &cause, &pending.0);
        }
    }
    waiting.close();
    while let Some(unsent) = waiting.recv().await {
        fail(&unsent, &"the link was given up".into(), &pending.0);
    }
}

/// Certainly not sent.
fn fail(unsent: &Outgoing, cause: &Arc<str>, pending: &Pending) {
    match unsent {
        Outgoing::Ask { id, .. } => pending.end(*id, Err(Broken::NotSent(Arc::clone(cause)))),
        Outgoing::Note(_) => {}
    }
}

/// Leaves no call without a word, however the link's task ends.
struct Ends(Arc<Pending>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end_all("the link ended", |_| true);
    }
}

type Stream = (mpsc::Sender<Batch>, Streaming<Batch>);

/// Opens the stream; the other end has said that it is the one who is meant.
async fn connect(config: &Config, peer: &Peer) -> Result<Stream, Arc<str>> {
    let said = |error: &dyn std::error::Error| -> Arc<str> {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text.into()
    };
    let tls = config.security.of_client(&peer.node, host_of(&peer.address))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", peer.address))
        .map_err(|error| said(&error))?
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|error| said(&error))?;
    }
    let channel: Channel = endpoint.connect().await.map_err(|error| said(&error))?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|error| said(&error))?;
    let (send, sends) = mpsc::channel(WIRE_BATCHES);
    let hello = Hello {
        version: VERSION,
        cluster: config.cluster.clone(),
        from: config.node.to_string(),
        to: peer.node.to_string(),
    };
    let hello = stream::iter([Batch { frames: vec![Kind::Hello(hello).into()] }]);
    let sends = stream::unfold(sends, async |mut sends: mpsc::Receiver<Batch>| Some((sends.recv().await?, sends)));
    let codec = ProstCodec::<Batch, Batch>::default();
    let opened = grpc.streaming(Request::new(hello.chain(sends)), PathAndQuery::from_static(PATH), codec);
    Ok((send, opened.await.map_err(|error| said(&error))?.into_inner()))
}

/// Sends what waits and hands out the answers until the stream breaks. Answers what was not handed to it, if there is
/// something.
async fn speak(
    first: Outgoing,
    waiting: &mut mpsc::Receiver<Outgoing>,
    send: &mpsc::Sender<Batch>,
    mut answers: Streaming<Batch>,
    pending: &Pending,
    sweep: &mut Interval,
) -> Option<Outgoing> {
    let mut first = Some(first);
    loop {
        let sends = async {
            // Only what can be handed over at once leaves the queue; until then it is certainly not sent.
            let room = send.reserve().await.ok()?;
            let open = |outgoing| open(outgoing, pending);
            let batch = match first.take() {
                Some(first) => open(first).map(|kind| Batch { frames: vec![kind.into()] }),
                None => Some(next_batch(waiting, open).await?),
            };
            if let Some(batch) = batch {
                room.send(batch);
            }
            Some(())
        };
        tokio::select! {
            answered = answers.message() => match answered {
                Ok(Some(batch)) => batch.frames.into_iter().filter_map(|frame| frame.kind).for_each(|kind| hand_out(kind, pending)),
                Ok(None) | Err(_) => break,
            },
            sent = sends => if sent.is_none() { break },
            _ = sweep.tick(), if !pending.is_empty() => pending.sweep(),
        }
    }
    first
}

/// Makes the frame of what waits; nothing if nobody waits for its answer any more.
fn open(outgoing: Outgoing, pending: &Pending) -> Option<Kind> {
    match outgoing {
        Outgoing::Ask { id, .. } if !pending.send(id) => None,
        Outgoing::Ask { id, ask: Ask { whom, call, within } } => {
            let (slot, epoch) = match whom {
                Whom::Slot(slot, epoch) => (Some(slot.0.into()), epoch.0),
                Whom::Node => (None, 0),
            };
            let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            let call = Arc::unwrap_or_clone(call);
            Some(Kind::Ask(AskFrame { id, slot, epoch, within_ms, call }))
        }
        Outgoing::Note(Note::Released { slot, owner }) => {
            Some(Kind::Released(SlotOwner { slot: slot.0.into(), owner: Some(owner.into()) }))
        }
    }
}

fn hand_out(kind: Kind, pending: &Pending) {
    match kind {
        Kind::Answer(AnswerFrame { id, answer }) => pending.end(id, Ok(Reply::Answer(answer))),
        Kind::Moved(MovedFrame { id, owner }) => pending.end(id, Ok(Reply::Moved(owner.and_then(OwnerFrame::owner)))),
        Kind::Failed(FailedFrame { id, cause }) => pending.end(id, Err(Broken::Unanswered(cause.into()))),
        Kind::Hello(_) | Kind::Ask(_) | Kind::Released(_) => {}
    }
}
