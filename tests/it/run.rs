//! `twin run`: a service as a child of the real binary.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{Node, Ran, twin};

/// How often is looked for what must be there soon.
const LOOKS_MAX: u32 = 1000;

/// A service that runs until it is told to end, and says how it goes.
const SERVICE: &str = "trap 'echo ending; exit 0' TERM; trap 'echo reloaded' HUP; echo ready; \
                       while :; do sleep 0.02; done";

struct Run {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Run {
    fn start(node: &Node, args: &[&str], script: &str) -> Self {
        let args = [&["run", "--app-id", "shop/orders"], args, &["--", "sh", "-c", script]].concat();
        let mut process = node.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The next line of the service, without what stands before it.
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.strip_prefix("== APP == ").unwrap_or_else(|| panic!("'{line}'")).trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Its exit code, and what was said until then.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.process.wait().unwrap().code(), rest)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Asked, so that its child does not outlive it.
        if let Ok(None) = self.process.try_wait() {
            kill_process(Pid::from_child(&self.process), Signal::TERM).ok();
            drop(self.process.wait());
        }
    }
}

/// Looks again and again, each time with a process of its own, until it is so.
fn until(it_is: impl Fn() -> bool) {
    assert!((0..LOOKS_MAX).any(|_| it_is()), "it is not so after {LOOKS_MAX} looks");
}

fn instances(node: &Node) -> Vec<Value> {
    let ran = node.run(&["get", "shop/orders", "--json"]);
    let twin: Value = serde_json::from_str(&ran.text).unwrap_or(Value::Null);
    twin["instances"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_service_finds_its_door_and_its_name_in_its_environment_and_its_exit_code_is_passed_on() {
    let node = Node::start();
    let script = "echo $APP_ID $APP_PORT $DAPR_HTTP_PORT $DAPR_GRPC_PORT $OTEL_SERVICE_NAME; \
                  echo $OTEL_EXPORTER_OTLP_ENDPOINT $OTEL_RESOURCE_ATTRIBUTES; echo ${TWIN_KEY-none}; \
                  test -n \"$DAPR_API_TOKEN\" && echo to stderr >&2; exit 7";
    let ran = node
        .command(&["run", "--app-id", "shop/orders", "--instance", "i1", "--app-port", "1", "--", "sh", "-c", script])
        .env("TWIN_KEY", node.operator())
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.version=2")
        .output()
        .unwrap();
    let ran = Ran::from(ran);
    assert_eq!(ran.code, 7, "{}", ran.errors);
    let lines: Vec<&str> = ran.text.lines().map(|line| line.strip_prefix("== APP == ").unwrap()).collect();
    let words: Vec<&str> = lines[0].split(' ').collect();
    let [app_id, app_port, http, grpc, name] = words[..] else { panic!("{}", lines[0]) };
    assert_eq!((app_id, app_port, name), ("orders", "1", "orders"));
    assert_ne!(http, grpc);
    let telemetry = format!("http://127.0.0.1:{http} service.version=2,service.namespace=shop,service.instance.id=i1");
    assert_eq!(lines[1..], [telemetry.as_str(), "none"], "no operator's key");
    assert!(ran.errors.contains("== APP == to stderr"), "{}", ran.errors);

    let keys = node.json(&["key", "ls"]);
    let made: Vec<&Value> = keys["keys"].as_array().unwrap().iter().filter(|key| key["label"] == "twin run").collect();
    assert!(made.len() == 1 && !made[0]["revoked_at"].is_null(), "its key has ended with it: {keys}");
}

#[test]
fn a_service_is_an_instance_while_it_is_up_and_gone_once_it_has_ended_as_asked() {
    let node = Node::start();
    let mut run = Run::start(&node, &["--instance", "i1"], SERVICE);
    assert_eq!(run.says(), "ready");
    until(|| instances(&node).iter().any(|instance| instance["id"] == "i1" && instance["health"] == "healthy"));
    run.signal(Signal::TERM);
    let (code, rest) = run.ended();
    assert_eq!((code, rest.as_str()), (Some(0), "== APP == ending\n"), "it was asked, and had its time");
    assert!(instances(&node).is_empty(), "{:?}", instances(&node));
}

#[test]
fn a_service_that_dies_stays_as_an_unwell_instance_and_its_code_is_ours() {
    let node = Node::start();
    let run = Run::start(&node, &["--instance", "i1"], "kill -9 $$");
    let (code, _) = run.ended();
    assert_eq!(code, Some(137), "as a shell would say it");
    let [instance] = &instances(&node)[..] else { panic!("{:?}", instances(&node)) };
    assert!(instance["health"] == "unhealthy" && instance.to_string().contains("137"), "{instance}");
}

#[test]
fn a_service_that_does_not_end_is_killed_after_its_time() {
    let node = Node::start();
    let mut run = Run::start(&node, &["--stop-grace", "0"], "trap '' TERM; echo deaf; while :; do sleep 0.02; done");
    assert_eq!(run.says(), "deaf");
    run.signal(Signal::TERM);
    assert_eq!(run.ended().0, Some(137));
}

#[test]
fn a_command_is_carried_out_as_the_command_line_says() {
    let node = Node::start();
    let mut run = Run::start(&node, &["--instance", "i1", "--on-command", "reload=signal:HUP"], SERVICE);
    assert_eq!(run.says(), "ready");
    until(|| !instances(&node).is_empty());
    let post = |name: &str| node.run(&["command", "shop/orders", "post", name, "--target", "i1", "--wait", "--json"]);
    let done = post("reload");
    assert_eq!(done.code, 0, "{} {}", done.text, done.errors);
    assert_eq!(run.says(), "reloaded");
    let unknown = post("explode");
    assert_ne!(unknown.code, 0);
    assert!(unknown.text.contains("--on-command"), "it says how to map it: {}", unknown.text);
}

#[test]
fn a_command_may_be_a_call_of_the_service() {
    use std::io::Write as _;
    let node = Node::start();
    let app = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = app.local_addr().unwrap().port().to_string();
    let heard = std::thread::spawn(move || {
        // The first connection only sees that somebody listens.
        drop(app.accept().unwrap());
        let (mut stream, _) = app.accept().unwrap();
        let (mut heard, mut bytes) = (String::new(), [0; 1024]);
        while !heard.contains('}') {
            let read = stream.read(&mut bytes).unwrap();
            heard.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"workers\":4}").unwrap();
        heard
    });
    let handler = "reload=http:/admin/reload";
    let _run = Run::start(&node, &["--instance", "i1", "--app-port", &port, "--on-command", handler], SERVICE);
    until(|| !instances(&node).is_empty());
    let post = ["command", "shop/orders", "post", "reload", r#"{"level":"debug"}"#, "--target", "i1", "--wait"];
    let done = node.json(&post);
    assert_eq!(done["result"], json!({"workers": 4}), "{done}");
    let heard = heard.join().unwrap();
    assert!(heard.starts_with("POST /admin/reload ") && heard.ends_with(r#"{"level":"debug"}"#), "{heard}");
}

#[test]
fn a_node_is_started_if_asked_for_and_ends_with_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let run = twin()
        .args(["run", "--app-id", "orders", "--node-port", "0", "--json", "--data-dir"])
        .arg(folder.path())
        .args(["--", "sh", "-c", "sleep 0.3; echo hello"])
        .output()
        .unwrap();
    let ran = Ran::from(run);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let said: Vec<Value> = ran.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&Value> = said.iter().map(|said| &said["event"]).collect();
    assert_eq!(events, ["up", "ended"], "{}", ran.text);
    assert_eq!(said[0]["service"], "default/orders");
    assert!(ran.errors.contains("== APP == hello"), "the service's lines make way: {}", ran.errors);
    let url = said[0]["node"].as_str().unwrap();
    assert_eq!(Ran::from(twin().args(["--node", url, "ls"]).output().unwrap()).code, 6, "it has ended, too");
}

#[test]
fn what_cannot_be_run_is_said_with_what_to_do() {
    let node = Node::start();
    let run = |args: &[&str]| node.run(&[&["run"], args].concat());
    let missing = run(&["--app-id", "orders", "--", "/no/such/program"]);
    assert!(missing.code == 1 && missing.errors.contains("/no/such/program"), "{}", missing.errors);
    let file = run(&["-f", "dapr.yaml", "--app-id", "orders", "true"]);
    assert!(file.code == 2 && file.errors.contains("its own 'twin run'"), "{}", file.errors);
    let nobody = Ran::from(twin().args(["--node", "http://127.0.0.1:1", "run", "-a", "a", "true"]).output().unwrap());
    assert_eq!(nobody.code, 6, "a node that was named is not replaced by another: {}", nobody.errors);
    let noted = run(&["--app-id", "orders", "--metrics-port", "9090", "--", "true"]);
    assert!(noted.code == 0 && noted.errors.contains("--metrics-port changes nothing"), "{}", noted.errors);
}

#[test]
fn resources_are_read_and_a_store_that_is_not_there_is_refused_unless_mapped() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let component = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: statestore }\n\
                     spec: { type: state.redis, version: v1 }\n";
    std::fs::write(folder.path().join("state.yaml"), component).unwrap();
    let path = folder.path().to_str().unwrap();
    let run = |args: &[&str]| {
        node.run(&[&["run", "--app-id", "orders", "--resources-path", path], args, &["--", "true"]].concat())
    };
    let refused = run(&[]);
    assert!(refused.code == 2 && refused.errors.contains("--map-components"), "{}", refused.errors);
    let mapped = run(&["--map-components"]);
    assert!(mapped.code == 0 && mapped.errors.contains("in the place of state.redis"), "{}", mapped.errors);
    std::fs::write(folder.path().join("wrong.yml"), "apiVersion: dapr.io/v1alpha1\nkind: Component\n").unwrap();
    let wrong = run(&[]);
    assert!(
        wrong.code == 2 && wrong.errors.contains("wrong.yml, document 1: 'metadata' is missing"),
        "{}",
        wrong.errors
    );
}
