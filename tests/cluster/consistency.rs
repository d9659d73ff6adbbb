//! What reads rest on, against real servers: the store proves what a clock cannot.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use compact_str::CompactString;
use service_twin::{
    cluster::Forwarded,
    model::{Consistency, Outcome, ServiceId, Timestamp},
    runtime::{Cluster, ClusterView, Runtime},
    store::{Epoch, Slot, Store, nats::NatsStore},
    twin::{
        Answer, Failure,
        service::message::{Create, GetView},
    },
};

use crate::{
    servers::Servers,
    world::{block_on, wait},
};

/// A node that knows nobody, and whose lease is what the test says.
struct Alone(Arc<AtomicBool>);

impl Cluster for Alone {
    fn forward(&self, _: Slot, _: Vec<u8>, _: Option<Timestamp>, done: Forwarded) {
        done(Err(Failure::Expired));
    }

    fn call(&self, _: &str, _: Vec<u8>, _: Duration, done: Forwarded) {
        done(Err(Failure::Expired));
    }

    fn others(&self) -> Vec<CompactString> {
        Vec::new()
    }

    fn view(&self) -> ClusterView {
        ClusterView::default()
    }

    fn holds_lease(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn claim_again(&self, _: Slot, _: Epoch) {}
}

struct Member {
    store: Arc<NatsStore>,
    runtime: Runtime,
    leased: Arc<AtomicBool>,
}

impl Member {
    fn start(servers: &Servers, name: &str) -> Self {
        let store = Arc::new(NatsStore::open(servers.config("tw", name)).unwrap());
        let leased = Arc::new(AtomicBool::new(true));
        let builder = Runtime::builder().store(store.clone()).cluster(Arc::new(Alone(leased.clone())));
        Self { store, runtime: service_twin::app::kinds(builder).start().unwrap(), leased }
    }

    fn claim(&self, slot: Slot) {
        let epoch = wait(|done| self.store.claim(slot, None, done)).unwrap();
        self.runtime.own(slot, epoch);
    }

    fn revision(&self, service: &ServiceId, on: Consistency) -> Answer<u64> {
        let view = GetView { behaviour: false };
        let ask = self.runtime.twin(service.key()).ask(view).consistency(on);
        block_on(ask.into_future()).map(|view| view.revision)
    }
}

#[test]
fn strict_reads_rest_on_the_servers_and_stale_ones_on_nothing() {
    let servers = Servers::one();
    let [a, b] = ["a", "b"].map(|name| Member::start(&servers, name));
    let service = ServiceId::new("shop", "orders").unwrap();
    let slot = a.store.slot_of(service.key());
    a.claim(slot);
    block_on(a.runtime.twin(service.key()).ask(Create { attributes: None }).into_future()).unwrap();
    assert_eq!(a.revision(&service, Consistency::Lease), Ok(1));

    // Without a lease the store is what an answer may rest on.
    a.leased.store(false, Ordering::Relaxed);
    assert_eq!(a.revision(&service, Consistency::Lease).unwrap_err().outcome(), Outcome::Unknown);
    for _ in 0..3 {
        assert_eq!(a.revision(&service, Consistency::Strict), Ok(1));
    }
    let batches = a.store.stats().flushes;
    assert_eq!(a.revision(&service, Consistency::StaleOk), Ok(1));
    assert_eq!(b.revision(&service, Consistency::StaleOk), Ok(1), "by whoever does not own it");
    assert_eq!(a.store.stats().flushes, batches, "that writes nothing");

    // One that lost the slot unawares, and whose clock is wrong, never answers strictly.
    a.leased.store(true, Ordering::Relaxed);
    b.claim(slot);
    assert_eq!(a.revision(&service, Consistency::Lease), Ok(1));
    assert_eq!(a.revision(&service, Consistency::Strict).unwrap_err().outcome(), Outcome::NotApplied);
    assert_eq!(b.revision(&service, Consistency::Strict), Ok(1));
}
