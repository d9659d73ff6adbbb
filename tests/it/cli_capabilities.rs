//! `twin grant`, `secret`, `config`, `state` and `call` against a real node.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::process::{Node, Ran};

/// Runs with something on its standard input.
fn fed(node: &Node, args: &[&str], input: &[u8]) -> Ran {
    let mut command = node.command(args);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input).unwrap();
    Ran::from(process.wait_with_output().unwrap())
}

fn fine(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}", ran.errors);
    ran.text
}

#[test]
fn a_right_is_given_explained_checked_and_taken_away() {
    let node = Node::start();
    node.json(&["desired", "shop/orders", "on", "set", "true"]);
    let own = ["shop/orders", "get", "state:statestore/private-1"];
    assert_eq!(fine(node.run(&[&["grant", "check"][..], &own].concat())), "yes\n");
    fine(node.run(&["grant", "deny", "shop/orders", "state:statestore/private-*"]));
    fine(node.run(&["grant", "deny", "shop/orders", "state:statestore/private-*", "--operation", "list"]));
    let no = node.run(&[&["grant", "check"][..], &own].concat());
    assert_eq!((no.code, no.text.as_str()), (1, "no\n"));
    assert!(no.errors.contains("deny * state:statestore/private-*"), "{}", no.errors);
    let explained = fine(node.run(&[&["grant", "explain"][..], &own].concat()));
    assert!(explained.contains("may not get") && explained.contains("deny * state:"), "{explained}");
    assert!(explained.contains("twin grant allow shop/orders 'state:statestore/private-1' --operation get"));
    fine(node.run(&["grant", "allow", "shop/orders", "secrets:*", "--operation", "set,delete", "--expires", "1h"]));
    let listed = fine(node.run(&["grant", "ls", "shop/orders"]));
    assert!(listed.contains("profile standard") && listed.contains("set,delete"), "{listed}");
    assert!(listed.contains("in 59m"), "{listed}");
    let grants = node.json(&["grant", "ls", "shop/orders"])["grants"].clone();
    assert_eq!(grants.as_array().unwrap().len(), 3);

    let rm = |rest: &[&str]| node.run(&[&["grant", "rm", "shop/orders"][..], rest].concat());
    fine(rm(&["state:statestore/private-*", "--operation", "list"]));
    assert_eq!(node.run(&[&["grant", "check"][..], &own].concat()).code, 1, "the other one is still there");
    fine(rm(&["state:statestore/private-*"]));
    assert_eq!(node.json(&[&["grant", "explain"][..], &own].concat())["allowed"], true);
    let missing = rm(&["state:statestore/private-*"]);
    assert!(missing.code == 3 && missing.errors.contains("twin grant ls"), "{}", missing.errors);
    assert_eq!(node.run(&["grant", "allow", "shop/orders", "everything"]).code, 2);
}

#[test]
fn a_secret_is_never_on_a_command_line_and_shows_only_if_asked_for() {
    let node = Node::start();
    let put = fed(&node, &["secret", "put", "shop/orders", "db"], b"hunter2\n");
    assert_eq!(fine(put), "version 1\n");
    let argv = node.run(&["secret", "put", "shop/orders", "db", "hunter2"]);
    assert_eq!(argv.code, 2, "a value among the arguments is none");
    let shown = node.run(&["secret", "get", "shop/orders", "db"]);
    assert!(shown.text.contains("version 1") && shown.errors.contains("--reveal"), "{} {}", shown.text, shown.errors);
    let journal = |node: &Node| node.json(&["journal", "shop/orders"]).to_string().matches("\"secrets.read\"").count();
    for quiet in [shown.text, shown.errors, fine(node.run(&["secret", "ls", "shop/orders"]))] {
        assert!(!quiet.contains("hunter2"), "{quiet}");
    }
    assert_eq!(journal(&node), 0, "nobody has read it");
    let revealed = fine(node.run(&["secret", "get", "shop/orders", "db", "--reveal"]));
    assert_eq!(revealed, "hunter2", "the line end was nobody's");
    assert_eq!(journal(&node), 1);

    let rotated = fed(&node, &["secret", "rotate", "shop/orders", "db", "--overlap", "30m"], b"hunter3");
    assert_eq!(fine(rotated), "version 2\n");
    let status = node.json(&["secret", "status", "shop/orders", "db"]);
    assert_eq!((&status["version"], &status["previous"]), (&json!(2), &json!(1)));
    let before = node.json(&["secret", "get", "shop/orders", "db", "--reveal", "--version", "1"]);
    assert_eq!(before, json!({"secret": "db", "version": 1, "value": "hunter2"}));

    let file = node.folder.join("tls.key");
    std::fs::write(&file, "key\n").unwrap();
    let from_file = ["secret", "put", "shop/orders", "tls", "--exact", "--from-file", file.to_str().unwrap()];
    fine(node.run(&from_file));
    assert_eq!(fine(node.run(&["secret", "get", "shop/orders", "tls", "--reveal"])), "key\n");
    assert_eq!(fed(&node, &["secret", "put", "shop/orders", "empty"], b"\n").code, 2);

    let unasked = node.run(&["secret", "rm", "shop/orders", "tls"]);
    assert!(unasked.code == 2 && unasked.errors.contains("--yes"), "{}", unasked.errors);
    fine(node.run(&["secret", "rm", "shop/orders", "tls", "--yes"]));
    let gone = node.run(&["secret", "get", "shop/orders", "tls"]);
    assert!(gone.code == 3 && gone.errors.contains("twin secret ls"), "{}", gone.errors);
}

#[test]
fn keys_of_the_configuration_change_together_and_the_newest_version_is_taken_back() {
    let node = Node::start();
    let file = node.folder.join("banner.txt");
    std::fs::write(&file, "hello\nworld").unwrap();
    let banner = format!("banner=@{}", file.display());
    assert_eq!(fine(node.run(&["config", "set", "shop/orders", "colour=red", &banner, "url=a=b"])), "version 1\n");
    assert_eq!(fine(node.run(&["config", "get", "shop/orders", "url"])), "a=b\n");
    assert_eq!(node.json(&["config", "get", "shop/orders", "banner"])["value"], "hello\nworld");
    fine(node.run(&["config", "set", "shop/orders", "colour=blue", "--rm", "url", "--if-match", "1"]));
    let stale = node.run(&["config", "set", "shop/orders", "colour=green", "--if-match", "1"]);
    assert_eq!(stale.code, 4, "{}", stale.errors);
    let shown = fine(node.run(&["config", "get", "shop/orders"]));
    assert!(shown.contains("version 2") && shown.contains("blue") && !shown.contains("url"), "{shown}");
    assert_eq!(fine(node.run(&["config", "rollback", "shop/orders"])), "version 3\n");
    assert_eq!(fine(node.run(&["config", "get", "shop/orders", "colour"])), "red\n");
    assert_eq!(node.run(&["config", "get", "shop/orders", "shape"]).code, 3);
    for wrong in [&["colour"][..], &["=red"], &[], &["a=1", "a=2"]] {
        assert_eq!(node.run(&[&["config", "set", "shop/orders"][..], wrong].concat()).code, 2, "{wrong:?}");
    }
}

#[test]
fn state_is_read_listed_written_under_an_etag_and_deleted() {
    let node = Node::start();
    let key = ["shop/orders", "statestore", "order/1"];
    let put = |rest: &[&str], value: &[u8]| fed(&node, &[&["state", "put"][..], &key, rest].concat(), value);
    assert_eq!(fine(put(&["--if-absent"], b"{\"total\": 3}\n")), "etag 1\n");
    assert_eq!(put(&["--if-absent"], b"{}").code, 4);
    assert_eq!(fine(put(&["--if-match", "1"], b"{\"total\": 4}")), "etag 2\n");
    assert_eq!(put(&["--if-match", "1"], b"{}").code, 4);
    assert_eq!(fine(node.run(&[&["state", "get"][..], &key].concat())), "{\"total\": 4}");
    let read = node.json(&[&["state", "get"][..], &key].concat());
    assert_eq!(read, json!({"key": "order/1", "etag": 2, "value": {"total": 4}}));
    for number in 2..=4 {
        let key = format!("order/{number}");
        fine(fed(&node, &["state", "put", "shop/orders", "statestore", &key, "--ttl", "1h"], b"x"));
    }
    fine(fed(&node, &["state", "put", "shop/orders", "statestore", "cart"], b"y"));
    let listed = |args: &[&str]| {
        let page = node.json(&[&["state", "ls", "shop/orders", "statestore"][..], args].concat());
        let keys: Vec<String> =
            page["keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap().to_owned()).collect();
        (keys, page["next"].clone())
    };
    assert_eq!(listed(&["order/"]).0, ["order/1", "order/2", "order/3", "order/4"]);
    let (keys, next) = listed(&["order/", "--limit", "2"]);
    assert_eq!((keys, &next), (vec!["order/1".into(), "order/2".into()], &json!("order/2")));
    assert_eq!(listed(&["order/", "--after", "order/2"]), (vec!["order/3".into(), "order/4".into()], Value::Null));
    let stores = fine(node.run(&["state", "ls", "shop/orders"]));
    assert!(stores.contains("statestore"), "{stores}");
    assert_eq!(node.run(&[&["state", "rm"][..], &key, &["--if-match", "1"]].concat()).code, 4);
    fine(node.run(&[&["state", "rm"][..], &key].concat()));
    assert_eq!(node.run(&[&["state", "get"][..], &key].concat()).code, 3);
}

#[test]
fn a_services_own_key_reaches_its_own_capabilities_and_no_others() {
    let node = Node::start();
    let key = node.json(&["key", "new", "service", "shop/orders"])["key"].as_str().unwrap().to_owned();
    let run = |args: &[&str]| node.run(&[&["--key", &key][..], args].concat());
    fine(run(&["state", "ls", "shop/orders", "statestore"]));
    for denied in [
        &["state", "ls", "shop/cart", "statestore"][..],
        &["config", "set", "shop/orders", "a=1"],
        &["grant", "allow", "shop/orders", "secrets:*"],
    ] {
        let ran = run(denied);
        assert_eq!(ran.code, 5, "{denied:?} {}", ran.errors);
    }
}

#[test]
fn anything_a_capability_can_be_asked_is_asked_by_its_name() {
    let node = Node::start();
    let listed = fine(node.run(&["call", "--list"]));
    assert!(listed.contains("CAPABILITY") && listed.contains("subscription-set"), "{listed}");
    let get = json!({"capability": "state", "request": "get", "operation": "get", "creates": true});
    assert!(node.json(&["call", "--list"]).as_array().unwrap().contains(&get));

    let write = br#"{"store": "statestore", "operations": [{"key": "a", "operation": {"set": {"value": "x"}}}]}"#;
    assert_eq!(fine(fed(&node, &["call", "shop/orders", "state", "write", "-"], write)), "[\n  1\n]\n");
    let keys = r#"{"store": "statestore", "keys": ["a"]}"#;
    assert_eq!(node.json(&["call", "shop/orders", "state", "get", keys])[0]["value"], "x");
    assert_eq!(node.json(&["call", "shop/orders", "state", "stores"])[0]["keys"], 1);
    assert_eq!(fine(node.run(&["call", "shop/orders", "state", "add-store", r#"{"store": "b"}"#])), "done\n");

    let unknown = node.run(&["call", "shop/orders", "state", "peek"]);
    assert!(unknown.code == 3 && unknown.errors.contains("add-store, get, list"), "{}", unknown.errors);
    fine(node.run(&["grant", "deny", "shop/orders", "state:statestore/a"]));
    let key = node.json(&["key", "new", "service", "shop/orders"])["key"].as_str().unwrap().to_owned();
    let denied = node.run(&["--key", &key, "call", "shop/orders", "state", "get", keys]);
    assert!(denied.code == 5 && denied.errors.contains("deny * state:statestore/a"), "{}", denied.errors);
    for wrong in [&["call"][..], &["call", "shop/orders", "state"], &["call", "shop/orders", "state", "get", "{"]] {
        assert_eq!(node.run(wrong).code, 2, "{wrong:?}");
    }
    assert_eq!(node.run(&["call", "--list", "shop/orders"]).code, 2);
}
