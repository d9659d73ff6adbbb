//! A node as a process of its own, and commands to it.
#![expect(clippy::unwrap_used, reason = "helpers of tests end at the first thing that is not as it should be")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;
use service_twin::app::KEY_FILE;

/// How long a node may take to be ready, and a command to end.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TWIN: &str = env!("CARGO_BIN_EXE_twin");

/// `twin`, free of what the environment of the tests says.
pub(crate) fn twin() -> Command {
    let mut command = Command::new(TWIN);
    command.env_remove("TWIN_NODE").env_remove("TWIN_KEY").env_remove("TWIN_DATA_DIR").stdin(Stdio::null());
    command
}

/// A node as a process; ended by its handle.
pub(crate) struct Node {
    pub(crate) process: Child,
    pub(crate) folder: PathBuf,
    pub(crate) url: String,
    /// Removed with the node, if it is the node's own.
    owned: Option<tempfile::TempDir>,
}

impl Node {
    /// In memory.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &["--memory"])
    }

    pub(crate) fn start_in(folder: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = twin();
        command.arg("serve").args(args);
        let mut node = Self::spawn(command, folder.path());
        node.owned = Some(folder);
        node
    }

    /// Runs a command that begins `twin serve`, over a folder that stays.
    pub(crate) fn spawn(mut command: Command, folder: &Path) -> Self {
        let mut process = command
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::sync_channel(64);
        let log = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            // Read to the end, so that the node never waits for us.
            log.lines().map_while(Result::ok).for_each(|line| drop(send.try_send(line)));
        });
        let mut said = Vec::new();
        let url = loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the node did not start: {said:?}"));
            let told: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            if let Some(url) = told["url"].as_str() {
                break url.to_owned();
            }
            said.push(line);
        };
        Self { process, folder: folder.to_owned(), url, owned: None }
    }

    /// The key that it made at its first start.
    pub(crate) fn operator(&self) -> String {
        std::fs::read_to_string(self.folder.join(KEY_FILE)).unwrap().trim().to_owned()
    }

    /// Ends it as an operator would; answers whether it ended well.
    #[cfg(unix)]
    pub(crate) fn terminate(mut self) -> bool {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().success()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = twin();
        command.args(args).env("TWIN_NODE", &self.url).env("TWIN_DATA_DIR", &self.folder);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs with `--json` and expects to succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.errors);
        serde_json::from_str(&ran.text).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.text))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) errors: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
