//! The demo, whole: a node, five real services under the OpenTelemetry SDK, and load.

use serde_json::Value;

use crate::process::{Node, twin};

#[test]
fn a_port_that_is_taken_is_named_with_a_way_out_and_another_failure_is_not_blamed_on_it() {
    let demo = |args: &[&str]| {
        let ran = twin().args(["demo", "--for", "1s"]).args(args).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, errors) = demo(&["--port", &port]);
    assert!(code == Some(1) && errors.contains("--port 0"), "{errors}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let (code, errors) = demo(&["--port", "0", "--data-dir", file.path().to_str().unwrap()]);
    assert!(code == Some(1) && !errors.contains("--port 0"), "{errors}");
}

#[test]
fn the_demo_sees_every_service_and_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let ran = twin()
        .args(["demo", "--for", "8s", "--port", "0", "--json", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    let summary: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert!(ran.status.success(), "{summary}\n{errors}");
    assert_eq!(summary["twins"], 5, "{summary}");
    for service in ["gateway", "orders", "payments", "inventory", "recommendations"] {
        assert!(summary["seen"][service]["count"].as_u64() > Some(0), "{service}: {summary}");
        assert_eq!(summary["seen"][service]["instances"], 0, "what is stopped in good order is gone: {summary}");
    }
    let calls = |service: &str| summary["seen"][service]["calls"].as_array().cloned().unwrap_or_default();
    for peer in ["payments", "inventory", "postgresql/shop", "kafka/orders-placed"] {
        assert!(calls("orders").iter().any(|called| called == peer), "{peer}: {summary}");
    }
    assert!(summary["requests"].as_u64() > Some(20), "{summary}");
    assert!(summary["errors"].as_u64() > Some(0), "the bad release failed some: {summary}");

    let node = Node::start_in(folder, &[]);
    let keys = node.json(&["key", "ls"])["keys"].as_array().unwrap().clone();
    let of_the_demo = keys.iter().filter(|key| key["label"].as_str().unwrap().starts_with("demo"));
    let left: Vec<bool> = of_the_demo.map(|key| key["revoked_at"].is_null()).collect();
    assert_eq!(left, [false, false], "its keys are as gone as it is: {keys:?}");
}
