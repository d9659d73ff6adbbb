//! Limit of a remote ask: one bidirectional stream of tonic, each message with a number, echoed as it is.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client,
    codegen::{BoxFuture, Service, http},
    server::{self, NamedService, StreamingService},
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::workloads::Client;

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

#[derive(Clone)]
struct Door;

impl NamedService for Door {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(server::Grpc::new(ProstCodec::<Frame, Frame>::default()).streaming(Self, request).await) })
    }
}

impl StreamingService<Frame> for Door {
    type Response = Frame;
    type ResponseStream = Streaming<Frame>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        Box::pin(async { Ok(Response::new(request.into_inner())) })
    }
}

/// Callers that share the stream.
#[derive(Clone)]
pub(crate) struct Echo {
    frames: mpsc::Sender<Frame>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
    body: Bytes,
}

impl Echo {
    /// Starts both ends; `bytes` is the size of a message.
    pub(crate) fn start(handle: &Handle, bytes: usize) -> Self {
        handle.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::spawn(Server::builder().add_service(Door).serve_with_incoming(incoming));
            let channel = Channel::from_shared(address).unwrap().tcp_nodelay(true).connect().await.unwrap();
            let (frames, sent) = mpsc::channel(1_024);
            let sent = stream::unfold(sent, async |mut sent: mpsc::Receiver<Frame>| Some((sent.recv().await?, sent)));
            let mut grpc = client::Grpc::new(channel);
            grpc.ready().await.unwrap();
            let path = http::uri::PathAndQuery::from_static("/bench.Echo/Echo");
            let answers = grpc.streaming(Request::new(sent), path, ProstCodec::<Frame, Frame>::default());
            let mut answers = answers.await.unwrap().into_inner();
            let echo = Self { frames, waiting: Arc::default(), body: vec![7; bytes].into() };
            let waiting = Arc::clone(&echo.waiting);
            tokio::spawn(async move {
                while let Ok(Some(Frame { id, body })) = answers.message().await {
                    waiting.lock().remove(&id).unwrap().send(body).unwrap();
                }
            });
            echo
        })
    }
}

impl Client for Echo {
    async fn call(&mut self, id: u64) -> u64 {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().insert(id, tell);
        self.frames.send(Frame { id, body: self.body.clone() }).await.unwrap();
        assert_eq!(told.await.unwrap(), self.body);
        1
    }
}
