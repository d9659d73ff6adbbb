//! How long a page of a search takes over HTTP, among a million service twins.

use std::{sync::Arc, time::Duration};

use service_twin::{
    model::ServiceId,
    runtime::{Config, Runtime},
    store::{Level, sled},
    twin::service::{Json, Service, message::Create},
};

use super::{
    Bars, Client, Contestant, Host, Plan, Row, Setting, Until, WINDOW,
    activation::CACHE_BYTES,
    edge::{Node, drive},
    ours::stop,
    run::progress,
};

/// Twins in the store; fewer with `--quick`.
const TWINS: u64 = 1_000_000;
const TWINS_QUICK: u64 = 100_000;
/// Twins stored between two words of progress.
const SLICE: u64 = 50_000;
/// Twins that share an owner: a thousand each, among a million.
const OWNERS: u64 = 1_000;
/// What is asked, in turn: one term that few have, one that all have, both, and a page in the middle.
const SEARCHES: [&str; 4] = [
    "attr.owner=team-077",
    "health=unknown",
    "health=unknown&attr.owner=team-077",
    "attr.tier=gold&after=bench/service-0050000",
];

/// Pages of 100, one connection; p99 is what is held to the bar.
pub(crate) fn page_of_100(setting: &Setting) -> Row {
    let (cpus, path) = (setting.cpus, setting.dir.join("node"));
    let twins = if setting.quick { TWINS_QUICK } else { TWINS };
    {
        let host = Host::start(cpus);
        let options = sled::Options { level: Level::Buffered, cache_bytes: CACHE_BYTES, ..sled::Options::default() };
        let store = sled::SledStore::open(&path, options).expect("the store opens");
        let config = Config { arbiters: cpus, ..Config::default() };
        let builder = Runtime::builder().config(config).store(Arc::new(store)).kind::<Service>();
        let runtime = builder.start().expect("a runtime starts");
        for from in (0..twins).step_by(usize::try_from(SLICE).expect("a count")) {
            progress(&format!("search: {from} of {twins} twins stored"));
            let plan = Plan { window: WINDOW, until: Until::Count(SLICE), timed: false };
            let made = host.run(plan, |_| Maker { runtime: runtime.clone(), from });
            assert_eq!(made.sum, SLICE, "every twin was made");
        }
        stop(host.handle(), runtime);
    }
    let (host, node) = (Host::start(cpus), Node::start(setting, 0));
    let key = node.key.clone();
    let ask: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync> = Arc::new(move |at| {
        let search = SEARCHES[usize::try_from(at).unwrap_or(0) % SEARCHES.len()];
        let head = format!("host: bench\r\nauthorization: Bearer {key}");
        format!("GET /api/v1/twins?limit=100&{search} HTTP/1.1\r\n{head}\r\n\r\n").into_bytes()
    });
    let ours = Contestant::ours(move |time: Duration| {
        // All of it: the doors close when the node is dropped.
        let node = &node;
        drive(&host, node.address, &ask, 1, time)
    });
    let bars = Bars { p99_us: Some(10_000.0), ..Bars::default() };
    Row { workload: "search", driver: "http", durability: "fsync", bars, contestants: vec![ours] }
}

/// Makes twins by number.
#[derive(Clone)]
struct Maker {
    runtime: Runtime,
    from: u64,
}

impl Client for Maker {
    async fn call(&mut self, at: u64) -> u64 {
        let number = self.from + at;
        let service = ServiceId::new("bench", &format!("service-{number:07}")).expect("a service id");
        let attributes = format!(r#"{{"owner":"team-{:03}","tier":"gold"}}"#, number % OWNERS);
        let create = Create { attributes: Json::parse(&attributes).ok() };
        let made = self.runtime.twin(service.key()).ask(create).await;
        u64::from(made.is_ok())
    }
}
