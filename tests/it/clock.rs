//! A clock that goes backwards under running twins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use service_twin::{
    app,
    model::{Clock, RequestKey, Timestamp},
    runtime::Runtime,
    store::memory::MemoryStore,
    twin::{
        journal::Moment,
        service::{
            Change, Service,
            message::{
                AckCommand, Create, Finish, FinishCommand, GetAttributes, NextCommands, PostCommand, SetAttributes,
                Target,
            },
        },
    },
};

/// Tells the time it was told.
struct Told(AtomicU64);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::Relaxed))
    }
}

const NOON: u64 = 1_795_397_042_000;
const HOUR: u64 = 3_600_000;
const TWIN: &str = "shop/orders";

fn set(number: u64) -> SetAttributes {
    SetAttributes { patch: serde_json::json!({ "n": number }).into(), if_match: None }
}

#[tokio::test]
async fn a_clock_that_goes_back_an_hour_stops_nothing_and_changes_nothing_that_was_said() {
    let clock = Arc::new(Told(AtomicU64::new(NOON)));
    let builder = Runtime::builder().clock(clock.clone()).store(Arc::new(MemoryStore::new()));
    let runtime = app::kinds(builder).start().unwrap();
    let twin = || runtime.twin(TWIN);
    twin().ask(Create { attributes: None }).await.unwrap();
    let key = RequestKey::new("before", Timestamp::from_unix_ms(NOON));
    let first = twin().ask(set(1)).key(key.clone()).await.unwrap();
    let post = PostCommand {
        name: "drain".into(),
        parameters: serde_json::json!({}).into(),
        target: Target::default(),
        delivery_timeout_ms: Some(HOUR),
        execution_timeout_ms: Some(HOUR),
        pace: None,
        if_match: None,
    };
    let posted = twin().ask(post).await.unwrap();

    clock.0.fetch_sub(HOUR, Ordering::Relaxed);
    let again = twin().ask(set(1)).key(key).await.unwrap();
    assert_eq!(again.revision, first.revision, "a repeat from the future is recognised");
    let second = twin().ask(set(2)).await.unwrap();
    assert!(second.revision > posted.revision, "revisions follow each other, whatever the time");
    let taken = twin().ask(NextCommands { instance: "i1".into(), limit: 1 }).await.unwrap();
    assert_eq!(taken.first().map(|command| command.id), Some(posted.id), "a command did not run out of time");
    twin().ask(AckCommand { id: posted.id, instance: "i1".into() }).await.unwrap();
    let finish = Finish::Succeeded { result: None };
    twin().ask(FinishCommand { id: posted.id, instance: "i1".into(), finish }).await.unwrap();

    let past = runtime.twin(TWIN).at(Moment::Revision(first.revision)).ask(GetAttributes).await.unwrap();
    assert_eq!(past.attributes.to_string(), r#"{"n":1}"#);
    let (entries, _) = runtime.twin(TWIN).journal::<Service>(0, 100).await.unwrap();
    let entries: Vec<service_twin::runtime::Journaled<Change>> = entries;
    assert!(entries.windows(2).all(|pair| pair[0].revision < pair[1].revision), "the journal keeps its order");
    assert_eq!(runtime.drain(Duration::from_secs(10)).await.unsettled, 0);
}
