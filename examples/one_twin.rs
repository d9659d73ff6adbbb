//! A host of its own asks one service twin: what it shall be is written durably, read back, and still there after a
//! restart. No server, no network.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, sync::Arc, time::Duration};

use service_twin::{
    runtime::Runtime,
    store::{Store, memory::MemoryStore},
    twin::service::{
        Json, Service,
        message::{Create, Edit, GetFeature, GetView, SetDesired},
    },
};

const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // `store::sled::SledStore::open(folder, …)` keeps it on disk.
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runtime = Runtime::builder().store(Arc::clone(&store)).kind::<Service>().start()?;

    let orders = runtime.twin("shop/orders");
    let created = orders.ask(Create { attributes: Some(Json::parse(r#"{"owner":"team-a"}"#)?) }).await?;
    let limits = Edit::Replace(Json::parse(r#"{"rps":100}"#)?);
    let set = SetDesired { feature: "limits".into(), edit: limits, if_match: Some(created.revision) };
    let written = orders.ask(set).await?;
    println!("desired since revision {}", written.revision);

    // Somebody who saw an older revision is refused, and nothing happens.
    let stale = SetDesired { feature: "limits".into(), edit: Edit::Remove, if_match: Some(created.revision) };
    println!("a stale write: {}", orders.ask(stale).await.expect_err("it is stale"));

    let view = orders.ask(GetView::default()).await?;
    println!("{} belongs to {} and is {}", view.id, view.attributes, view.health.status.as_str());
    assert_eq!(runtime.drain(DRAIN).await.unsettled, 0);

    // The twin comes back with the next message, as it was.
    let runtime = Runtime::builder().store(store).kind::<Service>().start()?;
    let feature = runtime.twin("shop/orders").ask(GetFeature { feature: "limits".into() }).await?;
    println!("after a restart: {} {}", feature.name, feature.desired.ok_or("it was set")?);
    assert_eq!(runtime.drain(DRAIN).await.unsettled, 0);
    Ok(())
}
