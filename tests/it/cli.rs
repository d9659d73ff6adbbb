//! The command line against a real node, as a person or a script would use it.

use std::process::Stdio;

use serde_json::{Value, json};
use service_twin::model::Timestamp;

use crate::process::{Node, Ran, twin};

#[test]
fn without_a_node_the_error_says_how_to_start_one() {
    let ran = Ran::from(twin().args(["--node", "http://127.0.0.1:1", "ls"]).output().unwrap());
    assert_eq!(ran.code, 6);
    assert!(ran.errors.contains("127.0.0.1:1") && ran.errors.contains("twin serve"), "{}", ran.errors);
    assert_eq!(Ran::from(twin().arg("nonsense").output().unwrap()).code, 2);
}

#[test]
fn without_a_key_the_error_says_where_it_lies() {
    let node = Node::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = Ran::from(node.command(&["ls"]).env("TWIN_DATA_DIR", elsewhere.path()).output().unwrap());
    assert_eq!(ran.code, 5);
    assert!(ran.errors.contains("operator.key"), "{}", ran.errors);
    assert_eq!(node.run(&["ls"]).code, 0, "beside the key file it is found");
}

#[test]
fn what_a_service_shall_be_is_set_merged_read_and_guarded() {
    let node = Node::start();
    let set = node.json(&["desired", "shop/orders", "limits", "set", r#"{"rps":100,"burst":5}"#]);
    node.json(&["desired", "shop/orders", "limits", "merge", r#"{"burst":null,"rps":50}"#]);
    let feature = node.json(&["desired", "shop/orders", "limits"]);
    assert_eq!(feature["desired"], json!({"rps": 50}));

    let stale = set["revision"].to_string();
    let ran = node.run(&["desired", "shop/orders", "limits", "rm", "--if-match", &stale]);
    assert_eq!(ran.code, 4);
    assert!(ran.errors.contains("read it again"), "{}", ran.errors);
    assert_eq!(node.run(&["desired", "shop/orders", "limits", "set", "{"]).code, 2, "no JSON");
    assert_eq!(node.run(&["desired", "shop/orders", "colour"]).code, 3, "no such feature");

    let shown = node.run(&["get", "shop/orders"]);
    assert!(shown.text.contains("shop/orders") && shown.text.contains("limits"), "{}", shown.text);
}

#[test]
fn twins_are_found_by_terms_and_gone_once_removed() {
    let node = Node::start();
    for name in ["a", "b", "c"] {
        node.json(&["desired", &format!("shop/{name}"), "on", "set", "true"]);
    }
    node.json(&["desired", "farm/cow", "on", "set", "true"]);
    let ids = |args: &[&str]| node.run(&[&["ls", "-q"], args].concat()).text;
    assert_eq!(ids(&["namespace=shop"]), "shop/a\nshop/b\nshop/c\n");
    assert_eq!(ids(&["namespace=shop", "--after", "shop/a", "--limit", "1"]), "shop/b\n");
    assert_eq!(node.run(&["ls", "colour=red"]).code, 4);

    let row = node.run(&["ls", "namespace=farm"]).text;
    assert!(row.split_whitespace().any(|cell| cell == "no"), "IN SYNC reads as in 'twin get': {row}");

    let unasked = node.run(&["rm", "shop/b"]);
    assert!(unasked.code == 2 && unasked.errors.contains("--yes"), "nobody was asked: {}", unasked.errors);
    assert_eq!(node.run(&["rm", "shop/b", "--yes"]).code, 0);
    assert_eq!(node.run(&["get", "shop/b"]).code, 3);
    assert_eq!(ids(&["namespace=shop"]), "shop/a\nshop/c\n");
    assert_eq!(ids(&[]), "farm/cow\nshop/a\nshop/c\n", "without terms, too");
    let wrong = node.run(&["ls", "health=bad"]);
    assert!(wrong.code == 4 && wrong.errors.contains("degraded"), "{}", wrong.errors);
    assert_eq!(node.run(&["ls", "-q", "namespace=farm", "instances=0"]).text, "farm/cow\n");
}

#[test]
fn a_command_is_posted_listed_and_taken_back() {
    let node = Node::start();
    node.json(&["desired", "shop/orders", "on", "set", "true"]);
    let posted = node.json(&["command", "shop/orders", "post", "drain", r#"{"grace":5}"#]);
    let id = posted["id"].to_string();
    let listed = node.json(&["command", "shop/orders", "ls"]);
    assert_eq!(listed["commands"][0]["name"], "drain");
    assert_eq!(node.json(&["command", "shop/orders", "get", &id])["state"], "queued");
    node.json(&["command", "shop/orders", "cancel", &id]);
    assert_eq!(node.json(&["command", "shop/orders", "get", &id])["state"], "cancelled");
    assert_eq!(node.run(&["command", "shop/orders", "get", "999"]).code, 3);
}

#[test]
fn a_key_covers_what_it_was_made_for_until_it_is_revoked() {
    let node = Node::start();
    node.json(&["desired", "shop/orders", "on", "set", "true"]);
    let made = node.json(&["key", "new", "service", "shop/orders", "--label", "test"]);
    let key = made["key"].as_str().unwrap();
    assert_eq!(node.run(&["--key", key, "get", "shop/orders"]).code, 0);
    assert_eq!(node.run(&["--key", key, "get", "shop/payments"]).code, 5);
    assert_eq!(node.run(&["--key", key, "desired", "shop/orders", "on", "set", "false"]).code, 5);
    let id = made["id"].as_str().unwrap();
    assert!(node.run(&["key", "ls"]).text.contains(id));
    assert!(!node.run(&["key", "ls"]).text.contains(key), "a secret is shown once");
    let alone = node.run(&["key", "new", "service", "shop/orders"]);
    assert_eq!(alone.text.split_whitespace().count(), 1, "$(twin key new …) is the key: {}", alone.text);
    assert_eq!(node.run(&["--key", alone.text.trim(), "get", "shop/orders"]).code, 0);
    assert!(alone.errors.contains("not shown again"), "{}", alone.errors);
    assert_eq!(node.run(&["key", "revoke", id]).code, 0);
    assert_eq!(node.run(&["--key", key, "get", "shop/orders"]).code, 5);

    let rotated = node.json(&["key", "rotate", alone.text.trim(), "--overlap", "1h"]);
    let fresh = rotated["key"].as_str().unwrap();
    for key in [alone.text.trim(), fresh] {
        assert_eq!(node.run(&["--key", key, "get", "shop/orders"]).code, 0, "both count for a while");
    }
    assert!(node.run(&["key", "ls"]).text.contains("  in 5"), "{}", node.run(&["key", "ls"]).text);
    let soon = Timestamp::from_unix_ms(rotated["created_at"].as_u64().unwrap() + 1).to_string();
    let revoke = ["key", "revoke", "--service", "shop/orders", "--issued-before", &soon];
    assert_eq!(node.run(&revoke).text.trim(), "2 keys of shop/orders are revoked");
    assert_eq!(node.run(&["--key", fresh, "get", "shop/orders"]).code, 5);
}

#[test]
fn a_key_is_narrowed_and_read_without_a_node() {
    let node = Node::start();
    node.json(&["desired", "shop/orders", "on", "set", "true"]);
    let attenuate = ["token", "attenuate", "--operation", "get,list", "--scope", "twin:shop/*", "--expires", "1h"];
    let nowhere = ["--node", "http://127.0.0.1:1"];
    let narrow = node.run(&[&nowhere[..], &attenuate].concat()).text;
    let narrow = narrow.trim();
    assert_eq!(node.run(&["--key", narrow, "get", "shop/orders"]).code, 0);
    assert_eq!(node.run(&["--key", narrow, "desired", "shop/orders", "on", "set", "false"]).code, 5);
    assert_eq!(node.run(&["--key", narrow, "key", "ls"]).code, 5);
    let shown = node.run(&["--node", "http://127.0.0.1:1", "--key", narrow, "token", "show"]).text;
    assert!(shown.contains("get,list on twin:shop/*") && shown.contains("expires at"), "{shown}");

    let file = node.folder.join("narrow.txt");
    std::fs::write(&file, format!("{narrow}\n")).unwrap();
    let shown = node.json(&["token", "show", file.to_str().unwrap()]);
    assert_eq!((&shown["kind"], &shown["narrowings"][0]["scopes"][0]), (&json!("operator"), &json!("twin:shop/*")));
    for wrong in
        [&["token", "attenuate"][..], &["token", "attenuate", "--scope", "x"], &["--key", "x", "token", "show"]]
    {
        assert_eq!(node.run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn a_change_reaches_whoever_follows_the_twin() {
    let node = Node::start();
    node.json(&["desired", "shop/orders", "limits", "set", "0"]);
    let mut following =
        node.command(&["events", "shop/orders", "--count", "1", "--for", "50"]).stdout(Stdio::piped()).spawn().unwrap();
    // The stream may not stand yet at the first write; it does at one of them.
    let mut rps = 1;
    while following.try_wait().unwrap().is_none() {
        node.json(&["desired", "shop/orders", "limits", "set", &rps.to_string()]);
        rps += 1;
    }
    let ran = Ran::from(following.wait_with_output().unwrap());
    let event: Value = serde_json::from_str(&ran.text).expect("an event came");
    assert_eq!((event["specversion"].as_str(), event["subject"].as_str()), (Some("1.0"), Some("shop/orders")));
}

#[test]
fn a_stopped_node_moves_to_another_folder_as_one_file() {
    let mut node = Node::start_in(tempfile::tempdir().unwrap(), &[]);
    node.json(&["desired", "shop/orders", "limits", "set", r#"{"rps":7}"#]);
    let before = node.json(&["get", "shop/orders"]);
    let key = std::fs::read_to_string(node.folder.join("operator.key")).unwrap();
    // Not asked to drain: what was acknowledged is there all the same.
    node.process.kill().unwrap();
    node.process.wait().unwrap();

    let file = node.folder.join("backup.twins");
    let file = file.to_str().unwrap();
    assert!(node.json(&["export", file])["items"].as_u64() > Some(2));
    assert_eq!(node.run(&["export", file]).code, 1, "nothing is overwritten");

    let restored = tempfile::tempdir().unwrap();
    let import = |args: &[&str]| Ran::from(node.command(args).env("TWIN_DATA_DIR", restored.path()).output().unwrap());
    assert_eq!(import(&["import", file]).code, 0);
    assert_eq!(import(&["import", file]).code, 1, "nothing is mixed");

    let nowhere = restored.path().join("nowhere");
    let damaged = restored.path().join("damaged.twins");
    std::fs::write(&damaged, b"TWNDUMP1").unwrap();
    let failed = node.command(&["import", damaged.to_str().unwrap()]).env("TWIN_DATA_DIR", &nowhere).output().unwrap();
    assert!(Ran::from(failed).code == 1 && !nowhere.exists(), "a failed import leaves no folder");

    std::fs::copy(node.folder.join("token.key"), restored.path().join("token.key")).unwrap();
    let again = Node::start_in(restored, &[]);
    let after = again.json(&["--key", key.trim(), "get", "shop/orders"]);
    assert_eq!((&after["revision"], &after["features"]), (&before["revision"], &before["features"]));
}

#[test]
fn the_journal_tells_who_changed_what_and_the_past_can_be_read() {
    let node = Node::start();
    let first = node.json(&["desired", "shop/orders", "limits", "set", "1"]);
    node.json(&["desired", "shop/orders", "limits", "set", "2"]);
    let journal = node.json(&["journal", "shop/orders"]);
    let entries = journal["entries"].as_array().unwrap();
    assert!(entries.len() >= 2 && entries.iter().all(|entry| entry["principal"].is_string()), "{journal}");
    assert!(node.run(&["journal", "shop/orders"]).text.contains("REVISION"));
    assert_eq!(node.run(&["journal", "shop/nobody"]).code, 3);
    let nobody = node.run(&["events", "shop/nobody", "--for", "1"]);
    assert!(nobody.code == 0 && nobody.errors.contains("no twin 'shop/nobody' yet"), "{}", nobody.errors);
    let past = node.json(&["get", "shop/orders", "--at", &first["revision"].to_string()]);
    assert_eq!(past["features"][0]["desired"], 1, "{past}");
    assert_eq!(node.run(&["get", "shop/orders", "--at", "some day"]).code, 4);
}

#[test]
fn a_setting_of_the_environment_that_does_not_exist_is_refused_by_name() {
    let config = |name: &str| Ran::from(twin().args(["serve", "--print-config"]).env(name, "7").output().unwrap());
    let known = config("TWIN_SERVER__DEADLINE_S");
    assert!(known.code == 0 && known.text.contains("deadline_s = 7"), "{}", known.errors);
    for (wrong, meant) in [("TWIN_SERVER__DEADLIN_S", "server.deadline_s"), ("TWIN_SEVER__DEADLINE_S", "server")] {
        let ran = config(wrong);
        assert!(ran.code == 1 && ran.errors.contains(&format!("did you mean '{meant}'?")), "{wrong}: {}", ran.errors);
        assert!(ran.errors.contains("environment"), "{wrong}: {}", ran.errors);
    }
    assert_eq!(config("TWIN_NODE").code, 0, "a variable of the commands is no setting of the node");
}
