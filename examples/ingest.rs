//! Telemetry makes a twin: spans go in as a batch, and the twin knows rate, errors, duration and whom it depends on.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, sync::Arc, time::Duration};

use service_twin::{
    model::{
        ServiceId,
        telemetry::{Batch, Peer, PeerKind, Resource, SpanKind, SpanSample},
    },
    runtime::Runtime,
    store::memory::MemoryStore,
    twin::service::{
        Service,
        message::{GetView, Ingest},
    },
};

const SPANS: u64 = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().store(Arc::new(MemoryStore::new())).kind::<Service>().start()?;
    let service = ServiceId::new("shop", "orders")?;

    let mut batch = Batch::new(service.clone());
    batch.resource =
        Resource { instance: Some("orders-1".into()), version: Some("1.4.0".into()), ..Resource::default() };
    let (operation, call) = (batch.symbols.intern("POST /orders"), batch.symbols.intern("charge"));
    let payments = Peer { kind: PeerKind::Service, name: batch.symbols.intern("payments") };
    for id in 0..SPANS {
        let served = SpanSample {
            id,
            operation,
            kind: SpanKind::Server,
            failed: id % 20 == 0,
            status_class: if id % 20 == 0 { 5 } else { 2 },
            duration_ns: 1_000_000 * (10 + id),
            end: runtime.now(),
            peer: None,
        };
        let called = SpanSample {
            id: SPANS + id,
            operation: call,
            kind: SpanKind::Client,
            duration_ns: 8_000_000,
            peer: Some(payments),
            ..served
        };
        batch.spans.extend([served, called]);
    }
    // A door tells (`tell`), for observations are never worth waiting for, and reads overtake them. We want to read now.
    let orders = runtime.twin(service.as_str());
    orders.ask(Ingest(Box::new(batch))).await?;

    let view = orders.ask(GetView { behaviour: true }).await?;
    println!("{} {}: {} instance(s)", view.id, view.version.ok_or("it was stated")?, view.instances.len());
    let behaviour = view.behaviour.ok_or("it was asked for")?;
    for o in behaviour.operations {
        let p99 = o.p99_s.unwrap_or_default() * 1e3;
        println!("{} {}: {} times, {} failed, p99 {p99:.0} ms", o.kind, o.operation, o.count, o.errors);
        assert_eq!(o.count, SPANS);
    }
    for edge in behaviour.edges {
        println!("calls {}: {} times, {:.0} ms on average", edge.peer, edge.count, edge.mean_s * 1e3);
    }
    assert_eq!(runtime.drain(Duration::from_secs(10)).await.unsettled, 0);
    Ok(())
}
