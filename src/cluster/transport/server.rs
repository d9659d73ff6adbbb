//! The end of a stream that answers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, BoxStream, Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::{
    CALL_BYTES_MAX, Config, MESSAGE_BYTES_MAX, PING_EVERY, SERVICE, VERSION, WINDOW_BYTES,
    frames::{AnswerFrame, AskFrame, Batch, FailedFrame, Hello, Kind, MovedFrame, OwnerFrame, SlotOwner, next_batch},
};
use crate::{
    cluster::link::{Ask, Listening, Note, Reply, Whom},
    store::{Epoch, Slot},
};

/// Why links are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address must not be served like this.
    #[error("{0}")]
    Refused(Arc<str>),
    /// The transport cannot.
    #[error("links between nodes cannot be served: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Answers other nodes until `stop` ends. Streams that are open then end; what was not answered is heard of by its sender.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    listening: Arc<dyn Listening>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map(|address: SocketAddr| address.ip().to_string()).unwrap_or_default();
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
    if let Some(tls) = config.security.of_server(&address).map_err(ServeError::Refused)? {
        server = server.tls_config(tls)?;
    }
    let (stopping, stopped) = watch::channel(false);
    let door = Door { config: Arc::new(config), listening, stopped };
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(server.add_service(door).serve_with_incoming_shutdown(incoming, stop).await?)
}

#[derive(Clone)]
struct Door {
    config: Arc<Config>,
    listening: Arc<dyn Listening>,
    stopped: watch::Receiver<bool>,
}

impl NamedService for Door {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Batch, Batch>::default();
            let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(MESSAGE_BYTES_MAX), None);
            Ok(grpc.streaming(door, request).await)
        })
    }
}

impl StreamingService<Batch> for Door {
    type Response = Batch;
    type ResponseStream = BoxStream<Batch>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Batch>>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let shown = request.peer_certs();
            let mut asked = request.into_inner();
            let from = door.greet(asked.message().await?)?;
            door.config.security.check_name(shown.as_deref().map_or(&[], Vec::as_slice), &from)?;
            tracing::debug!(from, "another node opened its stream");
            let in_flight_max = door.config.in_flight_max;
            // Whoever answers holds a permit, so there is always room for the answer.
            let (answer, answers) = mpsc::channel(in_flight_max);
            let room = Arc::new(Semaphore::new(in_flight_max));
            let stopped = door.stopped.clone();
            let reads = async move {
                // Ends if the stream breaks, and when nobody hears the answers any more.
                while let Ok(Some(batch)) = asked.message().await {
                    for frame in batch.frames {
                        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                        door.take(frame.kind, permit, &answer);
                    }
                }
            };
            let closed = {
                let mut stopped = stopped.clone();
                async move {
                    tokio::select! {
                        () = reads => {}
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                    }
                }
            };
            let reading = Ends(tokio::spawn(closed));
            let told = stream::unfold((answers, reading), move |(mut answers, reading)| {
                let mut stopped = stopped.clone();
                async move {
                    let open = |(kind, permit): (Kind, OwnedSemaphorePermit)| {
                        drop(permit);
                        Some(kind)
                    };
                    let batch = tokio::select! {
                        batch = next_batch(&mut answers, open) => batch,
                        _ = stopped.wait_for(|stopped| *stopped) => None,
                    };
                    batch.map(|batch| (Ok(batch), (answers, reading)))
                }
            });
            let told: Self::ResponseStream = Box::pin(told);
            Ok(Response::new(told))
        })
    }
}

/// Ends a task with whatever it belongs to.
struct Ends(tokio::task::JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Door {
    /// Whether the first frame is of this cluster and means this node; who says so.
    fn greet(&self, batch: Option<Batch>) -> Result<String, Status> {
        let first = batch.and_then(|batch| batch.frames.into_iter().next()).and_then(|frame| frame.kind);
        let Some(Kind::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a stream begins with who speaks to whom"));
        };
        let Hello { version, cluster, from, to } = hello;
        if version != VERSION {
            return Err(Status::failed_precondition(format!("this node speaks version {VERSION}, not {version}")));
        }
        if cluster != self.config.cluster {
            return Err(Status::permission_denied("this node is of another cluster"));
        }
        if to != self.config.node.as_str() {
            return Err(Status::failed_precondition("another node is meant"));
        }
        Ok(from)
    }

    fn take(
        &self,
        kind: Option<Kind>,
        permit: OwnedSemaphorePermit,
        answer: &mpsc::Sender<(Kind, OwnedSemaphorePermit)>,
    ) {
        match kind {
            Some(Kind::Ask(ask)) => {
                let AskFrame { id, slot, epoch, within_ms, call } = ask;
                let answer = answer.clone();
                let done = move |reply| {
                    let kind = match reply {
                        Reply::Answer(answer) if answer.len() > CALL_BYTES_MAX => {
                            let cause = format!("the answer has {} bytes, at most {CALL_BYTES_MAX}", answer.len());
                            Kind::Failed(FailedFrame { id, cause })
                        }
                        Reply::Answer(answer) => Kind::Answer(AnswerFrame { id, answer }),
                        Reply::Moved(owner) => Kind::Moved(MovedFrame { id, owner: owner.map(Into::into) }),
                    };
                    // Nobody waits any more if the stream is gone.
                    answer.try_send((kind, permit)).ok();
                };
                let whom = match slot.map(u16::try_from) {
                    Some(Ok(slot)) => Whom::Slot(Slot(slot), Epoch(epoch)),
                    Some(Err(_)) => return done(Reply::Moved(None)),
                    None => Whom::Node,
                };
                let ask = Ask { whom, call: Arc::new(call), within: Duration::from_millis(within_ms) };
                Arc::clone(&self.listening).asked(ask, Box::new(done));
            }
            Some(Kind::Released(SlotOwner { slot, owner })) => {
                if let (Ok(slot), Some(owner)) = (u16::try_from(slot), owner.and_then(OwnerFrame::owner)) {
                    self.listening.told(Note::Released { slot: Slot(slot), owner });
                }
            }
            // Not for this end; or of a later version, which may be left out.
            Some(Kind::Hello(_) | Kind::Answer(_) | Kind::Moved(_) | Kind::Failed(_)) | None => {}
        }
    }
}
