//! The end of a stream that asks: one task for each other node connects, sends what waits, and hands out the answers.

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
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
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
    Links, Soon,
    link::{Ask, Broken, Note, Peer, Reply, Whom},
};

/// Batches handed to the wire that it has not taken; the wire itself holds a window of bytes.
const WIRE_BATCHES: usize = 2;
/// How often calls are dropped that nobody waits for any more.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A link that has no stream and nothing to say for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The streams of one node to all others.
pub struct Transport {
    config: Arc<Config>,
    spawner: Handle,
    links: Mutex<HashMap<Peer, Link>>,
    /// Number of the last call.
    last: AtomicU64,
}

/// The way to one node.
#[derive(Clone)]
struct Link {
    queue: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
}

/// What waits to be sent.
enum Outgoing {
    Ask { id: u64, ask: Ask, heard: Heard },
    Note(Note),
}

/// Who hears what became of a call.
type Heard = oneshot::Sender<Result<Reply, Broken>>;

/// What an open stream and the sender of its batches share: who waits for which answer.
type Pending = Arc<Mutex<HashMap<u64, Heard>>>;

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
        let link = Link { queue, room: Arc::new(Semaphore::new(self.config.in_flight_max)) };
        links.insert(peer.clone(), link.clone());
        self.spawner.spawn(run(Arc::clone(&self.config), peer.clone(), waiting));
        link
    }

    /// Hands a call to its link, which tells what becomes of it.
    fn begin(
        &self,
        to: &Peer,
        ask: Ask,
    ) -> Result<(oneshot::Receiver<Result<Reply, Broken>>, OwnedSemaphorePermit), Broken> {
        if ask.call.len() > CALL_BYTES_MAX {
            return Err(Broken::NotSent(format!("a call has at most {CALL_BYTES_MAX} bytes").into()));
        }
        let link = self.link(to);
        let permit = link.room.try_acquire_owned().map_err(|_| Broken::Full)?;
        let (heard, hears) = oneshot::channel();
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        link.queue.try_send(Outgoing::Ask { id, ask, heard }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Broken::Full,
            mpsc::error::TrySendError::Closed(_) => Broken::NotSent("the link was just given up".into()),
        })?;
        Ok((hears, permit))
    }
}

impl Links for Transport {
    fn ask(&self, to: Peer, ask: Ask) -> Soon<'_, Result<Reply, Broken>> {
        Box::pin(async move {
            let within = ask.within;
            let (hears, _permit) = self.begin(&to, ask)?;
            match timeout(within, hears).await {
                Ok(heard) => heard.unwrap_or_else(|_| Err(Broken::Unanswered("the stream to it broke".into()))),
                Err(_) => Err(Broken::Unanswered("no answer before the deadline".into())),
            }
        })
    }

    fn tell(&self, to: Peer, note: Note) {
        self.link(&to).queue.try_send(Outgoing::Note(note)).ok();
    }
}

/// Serves one link for as long as there is something to say.
async fn run(config: Arc<Config>, peer: Peer, mut waiting: mpsc::Receiver<Outgoing>) {
    // Connected for the first one that waits, which then goes first.
    while let Ok(Some(first)) = timeout(IDLE_MAX, waiting.recv()).await {
        let connected = timeout(config.connect_timeout, connect(&config, &peer)).await;
        let cause: Arc<str> = match connected {
            Ok(Ok((send, answers))) => {
                if let Some(unsent) = speak(first, &mut waiting, &send, answers).await {
                    fail(unsent, &"the stream was just given up".into());
                }
                continue;
            }
            Ok(Err(cause)) => cause,
            Err(_) => "no connection in time".into(),
        };
        tracing::debug!(node = %peer.node, address = %peer.address, %cause, "another node is not reached");
        fail(first, &cause);
        while let Ok(unsent) = waiting.try_recv() {
            fail(unsent, &cause);
        }
    }
    waiting.close();
    while let Some(unsent) = waiting.recv().await {
        fail(unsent, &"the link was given up".into());
    }
}

/// Certainly not sent.
fn fail(unsent: Outgoing, cause: &Arc<str>) {
    match unsent {
        Outgoing::Ask { heard, .. } => drop(heard.send(Err(Broken::NotSent(Arc::clone(cause))))),
        Outgoing::Note(_) => {}
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

/// Sends what waits and hands out the answers until the stream breaks. What was handed to it and not answered is unanswered;
/// answers what was not handed to it, if there is something.
async fn speak(
    first: Outgoing,
    waiting: &mut mpsc::Receiver<Outgoing>,
    send: &mpsc::Sender<Batch>,
    mut answers: Streaming<Batch>,
) -> Option<Outgoing> {
    let pending: Pending = Arc::default();
    let mut first = Some(first);
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sends = async {
            // Only what can be handed over at once leaves the queue; until then it is certainly not sent.
            let room = send.reserve().await.ok()?;
            let open = |outgoing| open(outgoing, &pending);
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
                Ok(Some(batch)) => batch.frames.into_iter().filter_map(|frame| frame.kind).for_each(|kind| hand_out(kind, &pending)),
                Ok(None) | Err(_) => break,
            },
            sent = sends => if sent.is_none() { break },
            _ = sweep.tick() => pending.lock().retain(|_, heard| !heard.is_closed()),
        }
    }
    first
}

/// Makes the frame of what waits and notes who waits for its answer; nothing if nobody does any more.
fn open(outgoing: Outgoing, pending: &Pending) -> Option<Kind> {
    match outgoing {
        Outgoing::Ask { heard, .. } if heard.is_closed() => None,
        Outgoing::Ask { id, ask, heard } => {
            pending.lock().insert(id, heard);
            let Ask { whom, call, within } = ask;
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
    let (id, heard) = match kind {
        Kind::Answer(AnswerFrame { id, answer }) => (id, Ok(Reply::Answer(answer))),
        Kind::Moved(MovedFrame { id, owner }) => (id, Ok(Reply::Moved(owner.and_then(OwnerFrame::owner)))),
        Kind::Failed(FailedFrame { id, cause }) => (id, Err(Broken::Unanswered(cause.into()))),
        Kind::Hello(_) | Kind::Ask(_) | Kind::Released(_) => return,
    };
    if let Some(hears) = pending.lock().remove(&id) {
        hears.send(heard).ok();
    }
}
