//! A service twin with everything it may have.

use std::sync::Arc;

use service_twin::{
    runtime::{Config, Runtime},
    store::memory::MemoryStore,
    twin::{
        Decide, Failure, Message, Rejection,
        service::{
            Json, Service,
            message::{
                DefineCommand, Edit, Heartbeat, PostCommand, Report, SelfHealth, SetAttributes, SetDesired, Target,
            },
            view::Status,
        },
    },
};

/// Tells it as often as it takes; what ends that is a bound of the part, never that of the record.
async fn fill<M>(runtime: &Runtime, times: usize, message: impl Fn(usize) -> M)
where
    M: Message<Twin = Service>,
    Service: Decide<M>,
{
    for number in 0..times {
        match runtime.twin("shop/full").ask(message(number)).await {
            Ok(_) => {}
            Err(Failure::Rejected(Rejection::Limit { limit, .. })) if limit != "record bytes" => return,
            // There is no room for one more instance.
            Err(Failure::Rejected(Rejection::Conflict { .. })) => return,
            Err(failure) => panic!("{failure} at {number}"),
        }
    }
}

fn text(letter: char, bytes: usize) -> Json {
    Json::from(serde_json::json!({ "a": letter.to_string().repeat(bytes) }))
}

#[tokio::test]
async fn a_twin_with_all_it_may_have_can_still_be_changed() {
    let config = Config { arbiters: 1, ..Config::default() };
    let runtime = Runtime::builder().config(config).store(Arc::new(MemoryStore::new())).kind::<Service>();
    let runtime = runtime.start().expect("a runtime starts");
    let attributes = |letter| SetAttributes { patch: text(letter, 2000), if_match: None };
    let desired = |letter: char, number: usize| SetDesired {
        feature: format!("feature-{number:02}").into(),
        edit: Edit::Replace(text(letter, if number == 0 { 4200 } else { 9 })),
        if_match: None,
    };
    fill(&runtime, 1, |_| attributes('x')).await;
    fill(&runtime, 99, |number| desired('x', number)).await;
    fill(&runtime, 16, |number| Report {
        instance: None,
        feature: format!("feature-{number:02}").into(),
        reported: Some(Edit::Replace(text('y', 1))),
        effective: None,
        applied: None,
        if_match: None,
    })
    .await;
    fill(&runtime, 99, |number| Heartbeat {
        instance: format!("instance-{number:02}-{}", "i".repeat(40)).into(),
        version: Some("1.2.3-rc.4+build.5".into()),
        health: Some(SelfHealth { status: Status::Unhealthy, reason: "r".repeat(64).into() }),
    })
    .await;
    fill(&runtime, 99, |number| DefineCommand {
        name: format!("command-{number:02}").into(),
        schema: Some(Json::from(serde_json::json!({"type": "object", "required": ["a"]}))),
        if_match: None,
    })
    .await;
    fill(&runtime, 99, |_| PostCommand {
        name: "restart".into(),
        parameters: text('p', 400),
        target: Target::Any,
        delivery_timeout_ms: None,
        execution_timeout_ms: None,
        pace: None,
        if_match: None,
    })
    .await;
    // Nothing of this makes it larger.
    for letter in ['k', 'l', 'm'] {
        runtime.twin("shop/full").ask(attributes(letter)).await.expect("attributes are replaced by others as large");
        runtime.twin("shop/full").ask(desired(letter, 0)).await.expect("a document is replaced by one as large");
    }
}
