//! Everything of a cluster as one file, and back: into another cluster, and into a data folder.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::servers::{Servers, until};

/// A node's process, with its key.
struct Node {
    child: Child,
    url: String,
    key: String,
}

fn twin(arguments: &[&str]) -> Command {
    let mut twin = Command::new(env!("CARGO_BIN_EXE_twin"));
    twin.args(arguments).stdin(Stdio::null()).env_remove("TWIN_KEY");
    twin
}

impl Node {
    /// Starts one, and waits until it says where it is.
    fn start(folder: &Path, config: &str) -> Self {
        let log = folder.join("log");
        let out = fs::File::create(&log).unwrap();
        let mut serve = twin(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--config", config]);
        let child = serve.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let mut node = Self { child, url: String::new(), key: String::new() };
        until("a node", || {
            let lines = fs::read_to_string(&log).unwrap();
            assert!(node.child.try_wait().unwrap().is_none(), "it ended: {lines}");
            let url = lines.split(['"', ' ', '\\']).find(|word| word.starts_with("http://127.0.0.1:"));
            url.unwrap_or_default().trim_end_matches('/').clone_into(&mut node.url);
            let key = fs::read_to_string(folder.join("operator.key")).unwrap_or_default();
            key.trim().clone_into(&mut node.key);
            !node.url.is_empty() && !node.key.is_empty() && node.ask(&["ls"]).is_some()
        });
        node
    }

    fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let mut asked = twin(&["--json", "--node", &self.url, "--key", &self.key]);
        let answer = asked.args(arguments).output().unwrap();
        answer.status.success().then(|| serde_json::from_slice(&answer.stdout).unwrap_or(Value::Null))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Configuration of a node alone in a cluster of one server, or on no cluster.
fn config(folder: &Path, keys: &Path, servers: Option<&Servers>) -> String {
    let cluster = servers.map(|servers| {
        let servers = servers.config("twins", "a").servers.join("', '");
        let rest = "node = 'a'\nlisten = '127.0.0.1:0'\nreplicas = 1\nstreams = 2\nttl_s = 3\n";
        format!("[cluster]\nservers = ['{servers}']\n{rest}")
    });
    let files = ["token", "secrets"].map(|key| format!("{key}_key_file = '{}/{key}.key'\n", keys.display())).concat();
    let text = format!("data_dir = '{}'\n{files}{}", folder.display(), cluster.unwrap_or_default());
    let file = folder.join("twin.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_cluster_is_exported_and_imported_into_another_one_and_into_a_folder() {
    let [from, to, alone] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (old, new) = (Servers::one(), Servers::one());
    let file = from.path().join("all.twins");
    let file = file.to_str().unwrap();
    let keys = from.path().join("keys");
    assert!(twin(&["cluster", "init"]).arg(&keys).output().unwrap().status.success());
    let source = config(from.path(), &keys, Some(&old));
    let node = Node::start(from.path(), &source);
    for at in 0..6 {
        node.ask(&["desired", &format!("shop/s{at}"), "limits", "set", &format!("{{\"rps\": {at}}}")])
            .expect("written");
    }
    let run = |arguments: &[&str]| {
        let ran = twin(&["--json"]).args(arguments).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        (ran.status.success(), said)
    };
    let (fine, said) = run(&["export", file, "--config", &source]);
    assert!(fine, "{said}");
    drop(node);
    let (fine, said) = run(&["import", file, "--config", &source]);
    assert!(!fine && said.contains("empty"), "nothing is mixed: {said}");
    for (folder, servers) in [(&to, Some(&new)), (&alone, None)] {
        let target = config(folder.path(), &keys, servers);
        let (fine, said) = run(&["import", file, "--config", &target]);
        assert!(fine, "{said}");
        fs::copy(from.path().join("operator.key"), folder.path().join("operator.key")).unwrap();
        let node = Node::start(folder.path(), &target);
        for at in 0..6 {
            let twin = node.ask(&["get", &format!("shop/s{at}")]).expect("it is there");
            assert!(twin.to_string().contains(&format!("\"rps\":{at}}}")), "{twin}");
        }
    }
}
