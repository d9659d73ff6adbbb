//! The demo of a cluster, whole: three servers, three nodes, clients, and a node that is killed and comes back.

use std::process::Command;

use serde_json::Value;

use crate::servers::binary;

#[test]
fn the_demo_of_a_cluster_kills_a_node_under_load_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_twin"))
        .args(["demo", "--cluster", "--for", "20s", "--json", "--nats-server"])
        .arg(binary())
        .arg("--data-dir")
        .arg(folder.path().join("demo"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&demo.stderr);
    let summary: Value = serde_json::from_slice(&demo.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert!(demo.status.success(), "{summary}\n{errors}");
    assert_eq!(summary["lost"], 0, "{summary}");
    assert!(summary["acknowledged"].as_u64() > Some(100), "{summary}");
    assert!(summary["killed"].as_u64() > Some(0), "{summary}");
}

#[test]
fn without_a_server_the_demo_says_where_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_twin"))
        .args(["demo", "--cluster", "--for", "1s", "--nats-server", "/nowhere/nats-server", "--data-dir"])
        .arg(folder.path().join("demo"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&demo.stderr);
    assert_eq!(demo.status.code(), Some(1), "{errors}");
    assert!(errors.contains("/nowhere/nats-server") && errors.contains("nats.io/download"), "{errors}");
}
