//! What capabilities cost: state through the Dapr door, a topic from publisher to subscriber, a ruling in the turn.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dapr::dapr::proto::runtime::v1::{
    GetStateRequest, PublishEventRequest, ShutdownRequest, SubscribeTopicEventsRequestAlpha1,
    SubscribeTopicEventsRequestInitialAlpha1, SubscribeTopicEventsRequestProcessedAlpha1, TopicEventResponse,
    dapr_client::DaprClient, subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
    subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Heard,
};
use service_twin::{
    capability::{
        self,
        state::{Get, Match, Op, Operation, Write},
    },
    model::{
        Clock as _, Header, Key, Principal, ServiceId, SystemClock, TokenRights,
        grant::{Effect, Grant},
        rights::{Attenuation, Narrowing},
        scope::{Operations, Pattern},
    },
    twin::{
        Decide, Pages, Turn, Twin as _,
        part::Bytes,
        service::{
            Service,
            access::EditAccess,
            message::Create,
            parts::{self, Use},
        },
    },
};
use tokio::sync::{Notify, Semaphore, mpsc};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use super::{
    Bars, Client, Contestant, Host, Lap, Plan, Row, Setting, Until, WINDOW,
    activation::open,
    edge::{Node, drive},
    limits::sled_commit::{How, Raw},
    passes,
};

/// Services, each on a connection of its own.
const SERVICES: u64 = 64;
/// Keys of each.
const KEYS: u64 = 16;
const VALUE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// What a save writes: the twin's record and the key's page, in bytes.
const SAVED: [usize; 2] = [400, 160];
/// Connections of the gRPC rows.
const CHANNELS: u64 = 16;
/// Messages that are published and not taken yet.
const UNDER_WAY: usize = 512;
/// Rulings of one turn.
const RULINGS: u64 = 16;

type Ask = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

fn key_of(at: u64) -> String {
    format!("k{}", at / SERVICES % KEYS)
}

/// A node with services that have state, and their tokens.
fn node(setting: &Setting) -> (Node, Arc<[String]>) {
    let node = Node::start(setting, 0);
    let token = |at| {
        let service = ServiceId::new("", &format!("bench-{at:05}")).expect("a service id");
        let op = |key| Op {
            key: key_of(key * SERVICES).into(),
            matching: Match::Any,
            operation: Operation::Set { value: Bytes(VALUE.into()), ttl_s: None },
        };
        let write = Write { store: "statestore".into(), operations: (0..KEYS).map(op).collect() };
        node.write(&service, write);
        node.token_of(service)
    };
    let tokens = (0..SERVICES).map(token).collect();
    (node, tokens)
}

fn livez() -> Ask {
    Arc::new(|_| b"GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n".to_vec())
}

fn token_at(tokens: &[String], at: u64) -> &str {
    &tokens[usize::try_from(at % SERVICES).expect("a count")]
}

/// `GetState` over HTTP, 64 connections, beside the same server's `/livez`.
pub(crate) fn get_http(setting: &Setting) -> Row {
    let (node, tokens) = node(setting);
    let get: Ask = Arc::new(move |at| {
        let (key, token) = (key_of(at), token_at(&tokens, at));
        format!("GET /v1.0/state/statestore/{key} HTTP/1.1\r\nhost: bench\r\ndapr-api-token: {token}\r\n\r\n")
            .into_bytes()
    });
    let (ours, limit) = beside_livez(setting, node, get);
    let bars = Bars { limit: Some(0.5), ..Bars::default() };
    Row { workload: "get-state-http", driver: "http", durability: "fsync", bars, contestants: vec![ours, limit] }
}

fn beside_livez(setting: &Setting, node: Node, ask: Ask) -> (Contestant, Contestant) {
    let address = node.address;
    let (host, client, empty) = (Host::start(setting.cpus), Host::start(setting.cpus), livez());
    let ours = Contestant::ours(move |time| {
        // All of it: the doors close when the node is dropped.
        let node = &node;
        drive(&host, node.address, &ask, SERVICES, time)
    });
    let limit =
        Contestant::limit("the same server's /livez", move |time| drive(&client, address, &empty, SERVICES, time));
    (ours, limit)
}

/// `SaveState` at `Fsync` over 64 connections, beside raw sled and the same server's `/livez`.
pub(crate) fn save_http(setting: &Setting) -> Row {
    let (node, tokens) = node(setting);
    let save: Ask = Arc::new(move |at| {
        let (key, token) = (key_of(at), token_at(&tokens, at));
        let body = format!("[{{\"key\":\"{key}\",\"value\":\"{VALUE}{at}\"}}]");
        format!(
            "POST /v1.0/state/statestore HTTP/1.1\r\nhost: bench\r\ndapr-api-token: {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let (ours, livez) = beside_livez(setting, node, save);
    let shape = |at: u64| SAVED.iter().map(|bytes| (format!("{bytes}/bench-{at:05}"), *bytes)).collect();
    let raw = raw(setting, SERVICES, (0..SERVICES).map(shape).collect());
    let bars = Bars { slowest_limit: Some(0.5), ..Bars::default() };
    Row { workload: "save-state-http", driver: "http", durability: "fsync", bars, contestants: vec![ours, livez, raw] }
}

fn raw(setting: &Setting, window: u64, shapes: Vec<Vec<(String, usize)>>) -> Contestant {
    let (host, path) = (Host::start(setting.cpus), setting.dir.join("raw"));
    let client = Raw::start(open(&path), &path, shapes.into(), &[7; 1_024], How::Batch);
    Contestant::limit("raw sled, group commit", move |time| {
        host.run(Plan { window, until: Until::Elapsed(time), timed: false }, |_| client.clone())
    })
}

fn with<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("dapr-api-token", MetadataValue::try_from(token).expect("a token is ASCII"));
    request
}

fn channels(host: &Host, address: SocketAddr, count: u64) -> Vec<DaprClient<Channel>> {
    let channel = |_| {
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address").tcp_nodelay(true);
        DaprClient::new(host.handle().block_on(endpoint.connect()).expect("the server listens"))
    };
    (0..count).map(channel).collect()
}

/// What a gRPC caller asks.
#[derive(Clone, Copy)]
enum Method {
    GetState,
    /// It ends nothing, since the service holds nothing: key check and codec alone.
    Empty,
}

/// One caller; several share a connection.
struct Calls {
    client: DaprClient<Channel>,
    tokens: Arc<[String]>,
    method: Method,
}

impl Client for Calls {
    async fn call(&mut self, at: u64) -> u64 {
        let token = token_at(&self.tokens, at);
        match self.method {
            Method::GetState => {
                let get =
                    GetStateRequest { store_name: "statestore".into(), key: key_of(at), ..GetStateRequest::default() };
                let answer = self.client.get_state(with(token, get)).await.expect("the server answers").into_inner();
                u64::from(!answer.data.is_empty())
            }
            Method::Empty => {
                self.client.shutdown(with(token, ShutdownRequest {})).await.expect("the server answers");
                1
            }
        }
    }
}

/// `GetState` over gRPC, 64 callers on 16 connections, beside the same server's `Shutdown`.
pub(crate) fn get_grpc(setting: &Setting) -> Row {
    let (node, tokens) = node(setting);
    let of = |method| {
        let (host, tokens) = (Host::start(setting.cpus), Arc::clone(&tokens));
        let clients = channels(&host, node.address, CHANNELS);
        move |time| {
            let plan = Plan { window: SERVICES, until: Until::Elapsed(time), timed: true };
            let lap = host.run(plan, |me| {
                let client = clients[usize::try_from(me % CHANNELS).expect("a count")].clone();
                Calls { client, tokens: Arc::clone(&tokens), method }
            });
            assert_eq!(lap.sum, lap.ops, "every answer was a success");
            lap
        }
    };
    let (get, empty) = (of(Method::GetState), of(Method::Empty));
    let ours = Contestant::ours(move |time| {
        // All of it: the doors close when the node is dropped.
        let _serves = &node;
        get(time)
    });
    let limit = Contestant::limit("the same server's Shutdown", empty);
    let bars = Bars { limit: Some(0.5), ..Bars::default() };
    Row { workload: "get-state-grpc", driver: "grpc", durability: "fsync", bars, contestants: vec![ours, limit] }
}

/// What publisher and subscriber share.
struct Flow {
    room: Semaphore,
    taken: AtomicU64,
    moved: Notify,
}

struct Publisher {
    client: DaprClient<Channel>,
    token: Arc<str>,
    flow: Arc<Flow>,
}

impl Client for Publisher {
    async fn call(&mut self, at: u64) -> u64 {
        self.flow.room.acquire().await.expect("it is never closed").forget();
        let event = PublishEventRequest {
            pubsub_name: "pubsub".into(),
            topic: "bench".into(),
            data: format!("{VALUE}{at}").into_bytes(),
            data_content_type: "text/plain".into(),
            ..PublishEventRequest::default()
        };
        self.client.publish_event(with(&self.token, event)).await.expect("the server takes it");
        1
    }
}

fn said(kind: Said) -> SubscribeTopicEventsRequestAlpha1 {
    SubscribeTopicEventsRequestAlpha1 { subscribe_topic_events_request_type: Some(kind) }
}

/// Takes and settles whatever comes.
async fn subscribe(mut client: DaprClient<Channel>, token: Arc<str>, flow: Arc<Flow>, ready: mpsc::Sender<()>) {
    let (say, words) = mpsc::channel(1_024);
    let initial = SubscribeTopicEventsRequestInitialAlpha1 {
        pubsub_name: "pubsub".into(),
        topic: "bench".into(),
        ..SubscribeTopicEventsRequestInitialAlpha1::default()
    };
    say.send(said(Said::InitialRequest(initial))).await.expect("the channel is open");
    let words = futures_util::stream::unfold(words, async |mut words| Some((words.recv().await?, words)));
    let answers = client.subscribe_topic_events_alpha1(with(&token, words)).await;
    let mut answers = answers.expect("the topic is open").into_inner();
    while let Ok(Some(answer)) = answers.message().await {
        match answer.subscribe_topic_events_response_type {
            Some(Heard::EventMessage(event)) => {
                let status = Some(TopicEventResponse { status: 0 });
                let processed = SubscribeTopicEventsRequestProcessedAlpha1 { id: event.id, status };
                say.send(said(Said::EventProcessed(processed))).await.expect("the channel is open");
                flow.room.add_permits(1);
                flow.taken.fetch_add(1, Ordering::Relaxed);
                flow.moved.notify_one();
            }
            Some(Heard::InitialResponse(_)) | None => ready.send(()).await.expect("the bench waits"),
        }
    }
}

/// One publisher, 256 messages in flight on one connection, to one streaming subscriber, each message durable.
pub(crate) fn topic(setting: &Setting) -> Row {
    let node = Node::start(setting, 0);
    let token = |name| Arc::<str>::from(node.token_of(ServiceId::new("", name).expect("a service id")));
    let (publisher, subscriber) = (token("publisher"), token("subscriber"));
    let host = Host::start(setting.cpus);
    let flow = Arc::new(Flow { room: Semaphore::new(UNDER_WAY), taken: AtomicU64::new(0), moved: Notify::new() });
    let mut clients = channels(&host, node.address, 2).into_iter();
    let (taking, publishing) = (clients.next().expect("two"), clients.next().expect("two"));
    let (send, mut ready) = mpsc::channel(1);
    host.handle().spawn(subscribe(taking, subscriber, Arc::clone(&flow), send));
    host.handle().block_on(ready.recv()).expect("it subscribes");
    let mut published = 0;
    let ours = Contestant::ours(move |time| {
        let _serves = &node;
        Lap::of(|| {
            let plan = Plan { window: WINDOW, until: Until::Elapsed(time), timed: false };
            let (client, token) = (&publishing, &publisher);
            let lap = host.run(plan, |_| Publisher {
                client: client.clone(),
                token: Arc::clone(token),
                flow: Arc::clone(&flow),
            });
            published += lap.ops;
            host.handle().block_on(async {
                while flow.taken.load(Ordering::Relaxed) < published {
                    flow.moved.notified().await;
                }
            });
            lap.ops
        })
    });
    let shape = |at: u64| vec![(format!("m/{at:016x}"), 400)];
    let raw = raw(setting, WINDOW, (0..1_000).map(shape).collect());
    let bars = Bars { limit: Some(0.5), ..Bars::default() };
    Row { workload: "topic", driver: "grpc", durability: "fsync", bars, contestants: vec![ours, raw] }
}

/// A read of state decided under as many grants as a twin may have, with a token narrowed twice; and by the host, who is
/// asked nothing.
pub(crate) fn ruling(_: &Setting) -> Row {
    parts::host(capability::parts());
    let service = ServiceId::new("bench", "orders").expect("a service id");
    let mut rights = TokenRights::default();
    for scopes in [["state:*", "topics:*"], ["state:statestore/*", "secrets:db"]] {
        let scopes = scopes.map(|scope| Pattern::parse(scope).expect("a scope")).to_vec();
        let narrowing = Narrowing { operations: Operations::All, scopes: Some(scopes) };
        rights.narrow(Attenuation { narrowing, ..Attenuation::default() });
    }
    let principal = Principal::Service { key_id: "bench".into(), service: service.clone() };
    let header = Header::default().with_principal(principal).with_rights(Arc::new(rights));
    let (ruled, unruled) = (deciding(&service, header), deciding(&service, Header::default()));
    let bars = Bars { p50_us: Some(2.0), ..Bars::default() };
    let contestants = vec![Contestant::ours(ruled), Contestant::other("by the host, without a ruling", unruled)];
    Row { workload: "ruling", driver: "alone", durability: "none", bars, contestants }
}

/// Decides reads of 16 keys each; one key is one operation.
fn deciding(service: &ServiceId, header: Header) -> impl FnMut(Duration) -> Lap + use<> {
    const TURNS: u64 = 100;
    let now = SystemClock.now();
    let key = Key::parse(service.as_str()).expect("a key");
    let mut twin = Service::create(service.as_str());
    let grant = |at| Grant {
        effect: if at % 2 == 0 { Effect::Allow } else { Effect::Deny },
        operations: Operations::All,
        scope: Pattern::parse(&format!("state:statestore/orders-{at}/*")).expect("a scope"),
        expires_at: None,
    };
    let host = Header::default();
    let turn = Turn::new(now, &key, 0, &host);
    let made = twin.decide(&Create { attributes: None }, &turn).expect("it is made");
    made.changes.iter().for_each(|change| twin.apply(change, now));
    let edit = EditAccess { add: (0..32).map(grant).collect(), ..EditAccess::default() };
    let turn = Turn::new(now, &key, 1, &host);
    let granted = twin.decide(&edit, &turn).expect("as many as there may be");
    granted.changes.iter().for_each(|change| twin.apply(change, now));
    let keys = (0..RULINGS).map(|at| compact_str::format_compact!("cart-{at}/item")).collect();
    let (get, pages) = (Use(Get { store: "statestore".into(), keys }), Pages::new());
    move |time| {
        passes(time, || {
            let lap = Lap::of(|| {
                for _ in 0..TURNS {
                    let turn = Turn::new(now, &key, 2, &header).with_pages(&pages);
                    let ruled = twin.decide(&get, &turn).expect("it is decided").reply.expect("it is allowed");
                    assert_eq!(ruled.len(), get.0.keys.len(), "one answer a key");
                }
                TURNS * RULINGS
            });
            let each = lap.elapsed.as_nanos() / u128::from(TURNS * RULINGS);
            Lap { nanos: vec![u32::try_from(each).unwrap_or(u32::MAX)], ..lap }
        })
    }
}
