//! The ports and their connections.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{caller::Caller, forward::Forward};
use crate::{
    cli::error::Error,
    model::ServiceId,
    wire::{self, Spoke},
};

/// Connections at once; further ones are closed without a word.
const CONNECTIONS_MAX: usize = 1024;
/// How long a connection may be silent before its first request, and a head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a free port is looked for that is free on every loopback address.
const PORTS_TRIED_MAX: usize = 16;

/// A service's own door; closed when it is dropped.
pub struct Proxy {
    ports: [u16; 2],
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Opens two ports, any free ones in the place of 0, and passes on what comes to the node: as `service`, whose token is
    /// `token`.
    ///
    /// # Errors
    /// `Io` if a port cannot be listened on, `Usage` if node or token cannot be used.
    pub async fn open(node: &str, service: &ServiceId, token: &str, ports: [u16; 2]) -> Result<Self, Error> {
        let forward = Arc::new(Forward::new(node, service, token)?);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut serving = JoinSet::new();
        let mut opened = [0; 2];
        for (wanted, opened) in ports.into_iter().zip(&mut opened) {
            let taken =
                Error::io(format!("port {wanted} of the service's door; choose another, or 0 for any free one"));
            let listeners = listeners(wanted).await.map_err(taken)?;
            for listener in listeners {
                *opened = listener.local_addr().map_err(Error::io("the service's door"))?.port();
                serving.spawn(serve(listener, Arc::clone(&forward), Arc::clone(&permits)));
            }
        }
        Ok(Self { ports: opened, _serving: serving })
    }

    /// Its ports, in the order they were asked for; both speak both protocols.
    pub fn ports(&self) -> [u16; 2] {
        self.ports
    }
}

/// One port on every loopback address there is: `localhost` may be either, and must never be somebody else.
async fn listeners(port: u16) -> io::Result<Vec<TcpListener>> {
    for _ in 0..PORTS_TRIED_MAX {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let v6 = SocketAddr::from((IpAddr::from(Ipv6Addr::LOCALHOST), v4.local_addr()?.port()));
        match TcpListener::bind(v6).await {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // There is no IPv6 here.
            Err(_) => return Ok(vec![v4]),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

async fn serve(listener: TcpListener, forward: Arc<Forward>, permits: Arc<Semaphore>) {
    let builder = wire::builder(HEAD_TIMEOUT);
    // They end with this one.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(wire::ACCEPT_PAUSE).await;
            continue;
        };
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            connections.spawn(connection(stream, peer, Arc::clone(&forward), builder.clone(), permit));
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    forward: Arc<Forward>,
    builder: auto::Builder<TokioExecutor>,
    _permit: OwnedSemaphorePermit,
) {
    let Ok(ours) = stream.local_addr() else { return };
    // Without it, answers are only slower.
    drop(stream.set_nodelay(true));
    let caller = Arc::new(Caller::new(peer, ours));
    let spoke = Spoke::default();
    let service = {
        let spoke = spoke.clone();
        service_fn(move |request| {
            spoke.note();
            let (forward, caller) = (Arc::clone(&forward), Arc::clone(&caller));
            async move { Ok::<_, Infallible>(forward.answer(request, &caller).await) }
        })
    };
    let served = builder.serve_connection(TokioIo::new(stream), service);
    if let Some(Err(error)) = spoke.or_close(served, HEAD_TIMEOUT).await {
        tracing::debug!(%peer, error, "a connection of the service ended early");
    }
}
