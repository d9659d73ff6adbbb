//! Limits of W6: hyper's HTTP/1.1 server with an empty handler, and with a dashmap looked up by the id in the path and
//! an increment under its lock. No key, no metrics, no tracing, no router.

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::super::Host;
use super::lock::Map;

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Serves an empty handler; answers where.
pub(crate) fn empty(host: &Host) -> SocketAddr {
    serve(host, |_| Full::from("ok"))
}

/// Serves counters under the last part of the path.
pub(crate) fn counting(host: &Host, map: &Map) -> SocketAddr {
    let map = map.clone();
    serve(host, move |request| {
        let id = request.uri().path().rsplit('/').next().unwrap_or_default();
        let mut state = map.get_mut(id).expect("every id is there");
        state.count += 1;
        Full::from(state.count.to_string())
    })
}

fn serve<F>(host: &Host, handle: F) -> SocketAddr
where
    F: Fn(&Request<Incoming>) -> Full<Bytes> + Clone + Send + Sync + 'static,
{
    let listener = host.handle().block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    host.handle().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection comes");
            stream.set_nodelay(true).expect("a socket option");
            let handle = handle.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer: Answer = Ok(Response::new(handle(&request)));
                    async move { answer }
                });
                // A client that hangs up is no failure of the limit.
                let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}
