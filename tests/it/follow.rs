//! Who follows one twin misses nothing that its journal has, and gets nothing twice.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    api_world::{World, event},
    process::{Node, twin},
};

const TWIN: &str = "/api/v1/twins/shop/orders";

/// The events of a stream until the attribute `n` is `upto`: their ids, and `n` where it changed.
async fn until(response: &mut Response, upto: u64) -> Vec<(u64, Option<u64>)> {
    let (mut text, mut found) = (String::new(), Vec::new());
    loop {
        let chunk = response.chunk().await.unwrap().expect("the stream ended early");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
            if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                assert_ne!(field("event:"), Some("gap"), "{block}");
                let data: Value = serde_json::from_str(data).unwrap();
                let number = data["data"]["attributes"]["n"].as_u64();
                found.push((id.parse().unwrap(), number));
                if number == Some(upto) {
                    return found;
                }
            }
            text = rest.to_owned();
        }
    }
}

/// Checks that every number comes once, in order, under ids that grow.
fn assert_numbers(found: &[(u64, Option<u64>)], expected: std::ops::RangeInclusive<u64>) {
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "{found:?}");
    let numbers: Vec<_> = found.iter().filter_map(|(_, number)| *number).collect();
    assert_eq!(numbers, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn who_follows_one_twin_misses_nothing_over_the_death_of_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = twin();
        command.args(["serve", "--durability", "flushed"]);
        Node::spawn(command, folder.path())
    };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let set = async |node: &Node, number: u64| {
        let request = client.patch(format!("{}{TWIN}/attributes", node.url)).bearer_auth(node.operator());
        let answer = request.json(&json!({ "n": number })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    let follow = async |node: &Node, after: Option<u64>| {
        let mut request = client.get(format!("{}{TWIN}/events", node.url)).bearer_auth(node.operator());
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        request.send().await.unwrap()
    };
    let node = start();
    set(&node, 0).await;
    let mut stream = follow(&node, None).await;
    for number in 1..=5 {
        set(&node, number).await;
    }
    let heard = until(&mut stream, 5).await;
    assert_numbers(&heard, 1..=5);
    let last = heard.last().map(|(id, _)| *id);
    drop(stream);
    for number in 6..=60 {
        set(&node, number).await;
    }
    // Killed, not ended.
    drop(node);
    let node = start();
    let mut stream = follow(&node, last).await;
    assert_numbers(&until(&mut stream, 60).await, 6..=60);
    // The same stream goes on with what happens now.
    for number in 61..=70 {
        set(&node, number).await;
    }
    assert_numbers(&until(&mut stream, 70).await, 61..=70);
}

#[tokio::test]
async fn a_reader_of_one_twin_that_fell_behind_is_told_what_it_missed() {
    let world = World::with(|config| config.runtime.events_kept = 4).await;
    world.done("PUT", TWIN, json!({"attributes": {"n": 0}})).await;
    let events = format!("{TWIN}/events");
    let mut stream = world.request("GET", &events).send().await.unwrap();
    for number in 1..=40 {
        world.done("PATCH", &format!("{TWIN}/attributes"), json!({"n": number})).await;
    }
    let heard = until(&mut stream, 40).await;
    assert_numbers(&heard, 1..=40);
    let again = world.request("GET", &events).header("last-event-id", heard[9].0).send();
    assert_numbers(&until(&mut again.await.unwrap(), 40).await, 11..=40);
}

#[tokio::test]
async fn what_the_journal_has_no_longer_is_a_gap_after_which_the_stream_goes_on() {
    let world = World::new().await;
    let (events, attributes) = (format!("{TWIN}/events"), format!("{TWIN}/attributes"));
    world.done("PUT", TWIN, json!({"attributes": {"n": 0}})).await;
    world.done("PATCH", &attributes, json!({"n": 1})).await;
    world.done("DELETE", TWIN, Value::Null).await;
    world.done("PUT", TWIN, json!({"attributes": {"n": 2}})).await;
    for after in ["1", "1000000", "1795397042000.17"] {
        let mut stream = world.request("GET", &events).header("last-event-id", after).send().await.unwrap();
        let (id, gap) = event(&mut stream, "gap").await;
        assert!(gap["reason"].is_string() && id.parse::<u64>().is_ok(), "{id}: {gap}");
        world.done("PATCH", &attributes, json!({"n": after.len() + 10})).await;
        event(&mut stream, "twin.attributes.changed").await;
    }
}
