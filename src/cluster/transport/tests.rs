//! Streams between nodes over real connections on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::*;
use crate::{
    cluster::{
        Incarnation, Links, Owner,
        link::{Ask, Broken, Listening, Note, Peer, Reply, ReplyTo, Whom, asked},
    },
    store::{Epoch, Slot},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An authority that signs for nodes.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A node's certificate, which trusts those that `trusted` signed.
    fn node(&self, name: &str, trusted: &Self) -> Security {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Security::Mutual {
            authority: trusted.certificate.clone().into(),
            certificate: certificate.into(),
            key: key.serialize_pem().into(),
        }
    }

    fn one() -> &'static Self {
        static ONE: OnceLock<Authority> = OnceLock::new();
        ONE.get_or_init(Self::new)
    }
}

fn id(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

fn config(node: &str) -> Config {
    Config::new("cluster", id(node), Authority::one().node(node, Authority::one()))
}

/// Answers with what it was asked, or keeps who asked.
#[derive(Default)]
struct Echo {
    silent: bool,
    kept: Mutex<Vec<(Ask, ReplyTo)>>,
    came: Notify,
    most: AtomicUsize,
    notes: Mutex<Vec<Note>>,
}

impl Listening for Echo {
    fn asked(self: Arc<Self>, ask: Ask, done: ReplyTo) {
        if !self.silent {
            return done(Reply::Answer(ask.call.to_vec()));
        }
        let mut kept = self.kept.lock();
        kept.push((ask, done));
        self.most.fetch_max(kept.len(), Ordering::Relaxed);
        drop(kept);
        self.came.notify_one();
    }

    fn told(&self, note: Note) {
        self.notes.lock().push(note);
        self.came.notify_one();
    }
}

impl Echo {
    fn silent() -> Arc<Self> {
        Arc::new(Self { silent: true, ..Self::default() })
    }

    /// Waits until so many calls were kept.
    async fn keeps(&self, count: usize) {
        while self.kept.lock().len() < count {
            self.came.notified().await;
        }
    }
}

struct Served {
    peer: Peer,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
}

async fn serve_at(address: SocketAddr, config: Config, listening: Arc<Echo>) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let peer = Peer { node: config.node.clone(), address: listener.local_addr().unwrap().to_string().into() };
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(serve(config, listener, listening, async { drop(stopped.await) }));
    Served { peer, stop, ended }
}

async fn serve_echo(config: Config, listening: Arc<Echo>) -> Served {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), config, listening).await
}

impl Served {
    /// Ends the streams, and waits until the port is free.
    async fn end(self) -> Peer {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
        self.peer
    }
}

fn ask(call: &[u8]) -> Ask {
    Ask { whom: Whom::Slot(Slot(7), Epoch(3)), call: Arc::new(call.to_vec()), within: PATIENCE }
}

fn asks(transport: &Arc<Transport>, peer: &Peer, count: usize) -> JoinSet<(usize, Result<Reply, Broken>)> {
    let mut set = JoinSet::new();
    for at in 0..count {
        let (transport, peer) = (Arc::clone(transport), peer.clone());
        set.spawn(async move { (at, asked(&*transport, peer, ask(&at.to_le_bytes())).await) });
    }
    set
}

fn not_sent(broken: Result<Reply, Broken>) -> String {
    match broken {
        Err(Broken::NotSent(cause)) => cause.to_string(),
        other => panic!("{other:?} instead of a call that was not sent"),
    }
}

#[tokio::test]
async fn many_calls_in_flight_each_hear_their_own_answer() {
    let served = serve_echo(config("b"), Arc::default()).await;
    let transport = Arc::new(Transport::new(config("a")));
    for _ in 0..4 {
        for (at, heard) in asks(&transport, &served.peer, 256).join_all().await {
            assert_eq!(heard, Ok(Reply::Answer(at.to_le_bytes().to_vec())));
        }
    }
    let large = vec![7; 3 * 1024 * 1024];
    assert_eq!(asked(&*transport, served.peer.clone(), ask(&large)).await, Ok(Reply::Answer(large)));
    let too_large = ask(&vec![7; CALL_BYTES_MAX + 1]);
    assert!(not_sent(asked(&*transport, served.peer.clone(), too_large).await).contains("at most"));
}

#[tokio::test]
async fn what_was_sent_on_a_stream_that_breaks_is_unanswered_and_the_next_call_goes_on_a_new_one() {
    let silent = Echo::silent();
    let served = serve_echo(config("b"), Arc::clone(&silent)).await;
    let transport = Arc::new(Transport::new(config("a")));
    let calls = asks(&transport, &served.peer, 100);
    silent.keeps(100).await;
    let peer = served.end().await;
    for (at, heard) in calls.join_all().await {
        assert!(matches!(heard, Err(Broken::Unanswered(_))), "call {at}: {heard:?}");
    }
    not_sent(asked(&*transport, peer.clone(), ask(b"nobody")).await);
    let again = serve_at(peer.address.parse().unwrap(), config("b"), Arc::default()).await;
    assert_eq!(asked(&*transport, again.peer.clone(), ask(b"there")).await, Ok(Reply::Answer(b"there".to_vec())));
}

#[tokio::test]
async fn nobody_but_a_node_of_the_cluster_is_heard() {
    let echo = Echo::silent();
    let served = serve_echo(config("b"), Arc::clone(&echo)).await;
    let (one, other) = (Authority::one(), Authority::new());
    let refused = async |config: Config, to: &str| {
        let peer = Peer { node: id(to), address: served.peer.address.clone() };
        not_sent(asked(&Transport::new(config), peer, ask(b"x")).await)
    };
    refused(Config::new("cluster", id("a"), other.node("a", one)), "b").await;
    refused(Config::new("cluster", id("a"), one.node("a", &other)), "b").await;
    let another = refused(Config::new("cluster", id("a"), one.node("c", one)), "b").await;
    assert!(another.contains("not of the node 'a'"), "who has the certificate of one node does not speak for another");
    refused(Config::new("cluster", id("a"), Security::Plain), "b").await;
    assert!(refused(Config { cluster: "another".into(), ..config("a") }, "b").await.contains("another cluster"));
    refused(config("a"), "c").await;
    assert_eq!(echo.most.load(Ordering::Relaxed), 0, "none of it was heard");
    // Nor is one asked that is at the place of another; and one that has two names answers to its own.
    let at = serve_echo(Config { security: one.node("c", one), ..config("b") }, Arc::clone(&echo)).await;
    let at = async |to: &str| {
        let peer = Peer { node: id(to), address: at.peer.address.clone() };
        not_sent(asked(&Transport::new(config("a")), peer, ask(b"x")).await)
    };
    at("b").await;
    assert!(at("c").await.contains("another node is meant"));
    assert_eq!(echo.most.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_asked_so_much_and_no_more() {
    let silent = Echo::silent();
    let served = serve_echo(Config { in_flight_max: 4, ..config("b") }, Arc::clone(&silent)).await;
    let transport = Arc::new(Transport::new(Config { in_flight_max: 16, ..config("a") }));
    let calls = asks(&transport, &served.peer, 16);
    silent.keeps(4).await;
    assert_eq!(asked(&*transport, served.peer.clone(), ask(b"more")).await, Err(Broken::Full));
    let mut answered = 0;
    while answered < 16 {
        silent.keeps(1).await;
        let kept: Vec<_> = silent.kept.lock().drain(..).collect();
        for (ask, done) in kept {
            done(Reply::Answer(ask.call.to_vec()));
            answered += 1;
        }
    }
    for (at, heard) in calls.join_all().await {
        assert_eq!(heard, Ok(Reply::Answer(at.to_le_bytes().to_vec())));
    }
    assert_eq!(silent.most.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_call_waits_no_longer_than_its_deadline_and_carries_what_is_left_of_it() {
    let silent = Echo::silent();
    let served = serve_echo(config("b"), Arc::clone(&silent)).await;
    let transport = Arc::new(Transport::new(config("a")));
    let short = Ask { within: Duration::from_millis(300), ..ask(b"x") };
    let heard = asked(&*transport, served.peer.clone(), short.clone()).await;
    assert_eq!(heard, Err(Broken::Unanswered("no answer before the deadline".into())));
    silent.keeps(1).await;
    assert_eq!(silent.kept.lock()[0].0, short);
}

#[tokio::test]
async fn an_owner_and_a_note_arrive_as_they_were_sent() {
    let silent = Echo::silent();
    let served = serve_echo(config("b"), Arc::clone(&silent)).await;
    let transport = Arc::new(Transport::new(config("a")));
    let owner = Owner { node: id("c"), incarnation: Incarnation(5), released: true, epoch: Epoch(99) };
    let note = Note::Released { slot: Slot(4095), owner: owner.clone() };
    transport.tell(served.peer.clone(), note.clone());
    let call = asks(&transport, &served.peer, 1);
    silent.keeps(1).await;
    let (slot, _) = silent.kept.lock().pop().unwrap();
    assert_eq!(slot.whom, Whom::Slot(Slot(7), Epoch(3)));
    drop(call);
    let (to, node) = (served.peer.clone(), Ask { whom: Whom::Node, ..ask(b"n") });
    let call = {
        let transport = Arc::clone(&transport);
        tokio::spawn(async move { asked(&*transport, to, node).await })
    };
    silent.keeps(1).await;
    assert_eq!(*silent.notes.lock(), [note]);
    let (heard, done) = silent.kept.lock().pop().unwrap();
    assert_eq!(heard.whom, Whom::Node);
    done(Reply::Moved(Some(owner.clone())));
    assert_eq!(call.await.unwrap(), Ok(Reply::Moved(Some(owner))));
}

#[test]
fn without_tls_only_loopback_is_called_or_served() {
    for (address, allowed) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("10.0.0.1:1", false),
        ("0.0.0.0:1", false),
        ("localhost:1", false),
        ("node-1:7", false),
    ] {
        let host = host_of(address);
        assert_eq!(Security::Plain.of_client(&id("a"), host).is_ok(), allowed, "{address}");
        assert_eq!(Security::Plain.of_server(host).is_ok(), allowed, "{address}");
    }
}
