//! rio-rs: it has a directory of its own and encodes every call. Its objects are called as one of its objects calls
//! another in the same server, without a socket: its fastest way.

use std::sync::Arc;

use rio_rs::{
    cluster::{
        membership_protocol::local::LocalClusterProvider,
        storage::{Member, local::LocalStorage},
    },
    object_placement::local::LocalObjectPlacement,
    prelude::{AppData, Handler, MembershipStorage as _, NoopError, Registry, Server, WithId},
    protocol::RequestEnvelope,
    registry::{IdentifiableType, Message},
    server::InternalClientSender,
    service::Service,
};
use serde::{Deserialize, Serialize};
use tower_service::Service as _;

use crate::workloads::{Audit, Client, Contestant, Host, Lap, Pick, Plan, State, passes};

const NAME: &str = "rio-rs";

#[derive(Default)]
struct Counter {
    id: String,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct Add(u64);

/// Hands out what an object is given to call others with.
#[derive(Serialize, Deserialize)]
struct Escape;

static ESCAPED: parking_lot::Mutex<Option<Arc<AppData>>> = parking_lot::Mutex::new(None);

impl WithId for Counter {
    fn set_id(&mut self, id: String) {
        self.id = id;
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl IdentifiableType for Counter {
    fn user_defined_type_id() -> &'static str {
        "Counter"
    }
}

impl IdentifiableType for Add {
    fn user_defined_type_id() -> &'static str {
        "Add"
    }
}

impl IdentifiableType for Escape {
    fn user_defined_type_id() -> &'static str {
        "Escape"
    }
}

impl Message for Add {}

impl Message for Escape {}

impl rio_rs::ServiceObject for Counter {}

#[async_trait::async_trait]
impl Handler<Add> for Counter {
    type Returns = u64;
    type Error = ();

    async fn handle(&mut self, Add(by): Add, _: Arc<AppData>) -> Result<u64, ()> {
        self.state.count += by;
        Ok(self.state.count)
    }
}

#[async_trait::async_trait]
impl Handler<Escape> for Counter {
    type Returns = ();
    type Error = ();

    async fn handle(&mut self, _: Escape, app: Arc<AppData>) -> Result<(), ()> {
        *ESCAPED.lock() = Some(app);
        Ok(())
    }
}

/// A server that is its own only member; it ends with the runtime it runs on.
async fn serve() -> Arc<AppData> {
    let mut registry = Registry::new();
    registry.add_type::<Counter>();
    registry.add_handler::<Counter, Add>();
    registry.add_handler::<Counter, Escape>();
    let members_storage = LocalStorage::default();
    let mut server = Server::builder()
        .address("127.0.0.1:0".to_owned())
        .registry(registry)
        .cluster_provider(LocalClusterProvider { members_storage: members_storage.clone() })
        .object_placement_provider(LocalObjectPlacement::default())
        .build();
    let listener = server.bind().await.expect("a port is free");
    let address =
        Server::<LocalStorage, LocalClusterProvider<LocalStorage>, LocalObjectPlacement>::try_local_addr(&listener);
    let address = address.expect("it is bound");
    let mut member = Member::new(address.ip().to_string(), address.port().to_string());
    member.set_active(true);
    members_storage.push(member).await.expect("it is in memory");
    let mut service = Service::try_from(&server).expect("a server serves");
    let request = RequestEnvelope::new("Counter".into(), "escape".into(), "Escape".into(), Vec::new());
    service.call(request).await.expect("the object answers");
    let app = ESCAPED.lock().take().expect("the object has put it there");
    tokio::spawn(async move { server.run(listener).await.expect("the server runs") });
    while app.try_get::<InternalClientSender>().is_none() {
        tokio::task::yield_now().await;
    }
    app
}

async fn add(app: &AppData, id: &str, by: u64) -> u64 {
    let reply = <Counter as rio_rs::ServiceObject>::send::<u64, _, NoopError>(app, "Counter", id, &Add(by)).await;
    reply.expect("the object answers")
}

#[derive(Clone)]
struct Caller {
    app: Arc<AppData>,
    ids: Arc<[String]>,
    pick: Pick,
}

impl Client for Caller {
    async fn call(&mut self, at: u64) -> u64 {
        add(&self.app, &self.ids[self.pick.index(at, self.ids.len())], 1).await
    }
}

/// W1.
pub(crate) fn cold(ids: &Arc<[String]>, once: Plan) -> Contestant {
    let ids = ids.clone();
    Contestant::other(NAME, move |time| {
        passes(time, || {
            let (host, caller) = server(&ids, Pick::InOrder);
            let lap = host.run(once, |_| caller.clone());
            assert_eq!(lap.sum, lap.ops, "{NAME}: some reply was wrong");
            lap
        })
    })
}

/// W3. Its server keeps something of every call between its objects, so each lap has one of its own.
pub(crate) fn hot_asks(ids: &Arc<[String]>, plan: impl Fn(std::time::Duration) -> Plan + 'static) -> Contestant {
    let ids = ids.clone();
    Contestant::other(NAME, move |time| {
        let (host, caller) = server(&ids, Pick::Hot);
        let all = |ids: Arc<[String]>| -> Vec<u64> {
            ids.iter().map(|id| host.handle().block_on(add(&caller.app, id, 0))).collect()
        };
        // Two first calls at once may make an object twice.
        all(ids.clone());
        let lap: Lap = host.run(plan(time), |_| caller.clone());
        Audit::default().check(NAME, &lap, all(ids.clone()));
        lap
    })
}

/// On one worker: with two a first call costs three times the CPU time and is no faster.
fn server(ids: &Arc<[String]>, pick: Pick) -> (Host, Caller) {
    let host = Host::start(1);
    let app = host.handle().block_on(serve());
    (host, Caller { app, ids: ids.clone(), pick })
}
