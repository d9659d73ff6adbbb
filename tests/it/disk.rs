//! Disks that are full, cannot be written or belong to somebody else, under a real node.
//!
//! A small disk is a tmpfs in a mount namespace of its own: the test runs itself once more inside. Where the system
//! forbids that, a bound on the size of files stands in for it, and says so.
#![expect(clippy::unwrap_used, reason = "helpers of tests end at the first thing that is not as it should be")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{
    api_world::Answer,
    process::{Node, TWIN, twin},
};

/// Says to the test that it runs on a small disk, and where that is.
const SMALL_DISK: &str = "SERVICE_TWIN_TEST_SMALL_DISK";
const DISK_BYTES: u64 = 48 << 20;
/// What is left for the node once it has started.
const ROOM_BYTES: u64 = 1 << 20;
const TWINS: usize = 20;
/// More commands than fit, by far.
const COMMANDS_MAX: usize = 20_000;

/// Where a node's data can run out of room.
enum Disk {
    /// A file system of this size.
    Small(PathBuf),
    /// Files cannot grow beyond this.
    Limited(tempfile::TempDir),
}

impl Disk {
    fn folder(&self) -> PathBuf {
        match self {
            Self::Small(place) => place.join("data"),
            Self::Limited(folder) => folder.path().join("data"),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder().with_file_name("ballast")
    }

    /// Starts a node with all the room there is, or with little.
    fn node(&self, is_tight: bool) -> Node {
        let mut command = match self {
            Self::Limited(_) if is_tight => {
                let mut shell = Command::new("sh");
                // In blocks of 512 bytes; without the trap the process would be killed instead of refused.
                shell.args(["-c", "trap '' XFSZ; ulimit -f 6144; exec \"$@\"", "sh", TWIN]);
                shell
            }
            Self::Small(_) | Self::Limited(_) => twin(),
        };
        command.arg("serve");
        let node = Node::spawn(command, &self.folder());
        if let (Self::Small(_), true) = (self, is_tight) {
            fill(&self.ballast());
        }
        node
    }

    fn make_room(&self) {
        match self {
            Self::Small(_) => std::fs::remove_file(self.ballast()).unwrap(),
            Self::Limited(_) => {}
        }
    }
}

/// Takes all the room there is but a little.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    let mut bytes = 0;
    while let Ok(written) = file.write(&[7; 8192]) {
        bytes += u64::try_from(written).unwrap();
    }
    file.set_len(bytes - ROOM_BYTES).unwrap();
}

/// Runs a test of this file once more on a small disk of its own; `false` if this system has none to give.
fn ran_on_a_small_disk(name: &str) -> bool {
    let place = tempfile::tempdir().unwrap();
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={DISK_BYTES} none \"$1\" && shift && exec \"$@\"");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"]);
        command.arg(place.path()).args(words).env(SMALL_DISK, place.path()).stdin(Stdio::null());
        command
    };
    if !unshare(&["true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("{name}: THIS SYSTEM GIVES NO MOUNT NAMESPACE (unshare --user --map-root-user --mount)");
        return false;
    }
    let this = std::env::current_exe().unwrap();
    let name = format!("disk::{name}");
    let status = unshare(&[this.to_str().unwrap(), "--exact", &name, "--nocapture"]).status().unwrap();
    assert!(status.success(), "{name} failed on the small disk; its words are above");
    true
}

/// Requests to one node with its operator's key.
struct Caller<'a> {
    client: Client,
    node: &'a Node,
    key: &'a str,
}

impl Caller<'_> {
    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.node.url)).bearer_auth(self.key);
        let request = if body.is_null() { request } else { request.json(&body) };
        Answer::of(request.send().await.unwrap()).await
    }
}

fn path(twin: usize) -> String {
    format!("/api/v1/twins/shop/s{twin:02}/attributes")
}

#[test]
fn a_full_disk_refuses_changes_with_what_to_do_keeps_reads_going_and_loses_nothing() {
    let name = "a_full_disk_refuses_changes_with_what_to_do_keeps_reads_going_and_loses_nothing";
    let disk = match std::env::var_os(SMALL_DISK) {
        Some(place) => Disk::Small(place.into()),
        None if ran_on_a_small_disk(name) => return,
        None => {
            eprintln!("{name}: FALLING BACK to a bound on the size of files (RLIMIT_FSIZE)");
            Disk::Limited(tempfile::tempdir().unwrap())
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run_out_of_room(&disk));
}

async fn run_out_of_room(disk: &Disk) {
    let node = disk.node(true);
    let key = node.operator();
    let client = Client::builder().no_proxy().build().unwrap();
    let caller = Caller { client: client.clone(), node: &node, key: &key };

    let mut acknowledged = BTreeMap::new();
    let mut refused = None;
    for n in 0..COMMANDS_MAX {
        let twin = n % TWINS;
        let body = json!({"n": n, "filling": format!("{n:06}").repeat(250)});
        let answer = if n < TWINS {
            let created = json!({"attributes": body});
            caller.send(Method::PUT, path(twin).trim_end_matches("/attributes"), created).await
        } else {
            caller.send(Method::PATCH, &path(twin), body).await
        };
        if answer.status >= 300 {
            refused = Some((twin, answer));
            break;
        }
        acknowledged.insert(twin, n);
    }
    let (unlucky, first) = refused.expect("the disk is full at some time");
    eprintln!("after {} acknowledged commands: {}", acknowledged.values().max().unwrap(), first.json());
    let (status, code) = first.problem();
    assert!(matches!((status, &*code), (500, "outcome-unknown") | (503, "not-committed")), "{status} {code}");
    let detail = first.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("make room") && detail.contains("restart the node"), "{detail}");

    // Whoever changes anything hears the same; whoever reads is served, the one whose commit failed aside.
    for twin in (0..TWINS).filter(|twin| *twin != unlucky) {
        let answer = caller.send(Method::PATCH, &path(twin), json!({"n": "never"})).await;
        assert_eq!(answer.problem(), (503, "not-committed".into()));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("make room") && detail.contains("restart the node"), "{detail}");
        let read = caller.send(Method::GET, &path(twin), Value::Null).await;
        assert_eq!((read.status, read.json()["n"].as_u64()), (200, Some(wide(acknowledged[&twin]))), "twin {twin}");
    }
    let ready = client.get(format!("{}/readyz", node.url)).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let why = ready.text().await.unwrap();
    assert!(why.contains("the store has stopped") && why.contains("make room"), "{why}");
    let traces = client.post(format!("{}/v1/traces", node.url)).bearer_auth(&key);
    let traces = traces.header("content-type", "application/json").body("{}").send().await.unwrap();
    assert_eq!(Answer::of(traces).await.problem(), (503, "not-committed".into()), "a sender keeps its telemetry");
    let metrics = caller.send(Method::GET, "/metrics", Value::Null).await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("twin_store_failed 1"));

    node.terminate();
    disk.make_room();
    let node = disk.node(false);
    let caller = Caller { client: client.clone(), node: &node, key: &key };
    for (twin, n) in &acknowledged {
        let read = caller.send(Method::GET, &path(*twin), Value::Null).await;
        assert_eq!(read.status, 200, "twin {twin}");
        let found = read.json()["n"].as_u64().unwrap();
        let may_be = if *twin == unlucky { wide(n + TWINS) } else { wide(*n) };
        assert!(found == wide(*n) || found == may_be, "twin {twin}: {found} for {n}");
        assert_eq!(caller.send(Method::PATCH, &path(*twin), json!({"n": "again"})).await.status, 200);
    }
    assert_eq!(client.get(format!("{}/readyz", node.url)).send().await.unwrap().status(), 200);
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

#[test]
fn a_folder_that_can_only_be_read_is_named_with_the_reason() {
    let name = "a_folder_that_can_only_be_read_is_named_with_the_reason";
    let (folder, own) = match std::env::var_os(SMALL_DISK) {
        Some(place) => (PathBuf::from(place), None),
        None if ran_on_a_small_disk(name) => return,
        None => {
            eprintln!("{name}: FALLING BACK to permissions, which hold back everybody but root");
            let own = tempfile::tempdir().unwrap();
            (own.path().to_owned(), Some(own))
        }
    };
    let mut command = twin();
    command.arg("serve");
    assert!(Node::spawn(command, &folder).terminate());
    let made = match &own {
        None => Command::new("mount").args(["-o", "remount,ro"]).arg(&folder).status(),
        Some(_) => Command::new("chmod").args(["-R", "a-w"]).arg(&folder).status(),
    };
    assert!(made.unwrap().success());
    let refused = twin().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&folder).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success(), "{said}");
    let reason = if own.is_none() { "Read-only file system" } else { "Permission denied" };
    assert!(said.contains(folder.to_str().unwrap()) && said.contains(reason), "{said}");
}

#[test]
fn a_second_node_on_the_same_folder_says_so_and_the_first_goes_on() {
    let node = Node::start_in(tempfile::tempdir().unwrap(), &[]);
    let second = twin().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&node.folder).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains("in use by another process"), "{said}");
    assert!(said.contains(node.folder.to_str().unwrap()), "{said}");
    node.json(&["desired", "shop/orders", "limits", "set", "1"]);
}
