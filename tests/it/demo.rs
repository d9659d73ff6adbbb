//! The demo, whole: a node, five real services under the OpenTelemetry SDK, and load.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn the_demo_sees_every_service_and_ends_by_itself() {
    let ran = Command::new(env!("CARGO_BIN_EXE_twin"))
        .args(["demo", "--for", "8s", "--port", "0", "--json"])
        .env_remove("TWIN_DATA_DIR")
        .stdin(Stdio::null())
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
}
