//! The services as child processes, each ended by its own handle.

use std::{collections::BTreeMap, io, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use reqwest::Method;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    task::JoinSet,
};

use super::plan::{BAD_RELEASE, BAD_SHARE, FLEET, NAMESPACE, RELEASE, SLOWER, Stage};
use crate::cli::{Client, Error};

/// How long a service may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to send its last telemetry.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// One process.
struct Process {
    name: &'static str,
    instance: String,
    release: &'static str,
    address: String,
    child: Child,
    control: ChildStdin,
}

impl Process {
    async fn start(
        program: &PathBuf,
        node: &str,
        key: &str,
        name: &'static str,
        release: &'static str,
        failing: f64,
    ) -> io::Result<Self> {
        let instance = format!("{name}-{}", release.replace('.', "-"));
        let mut command = Command::new(program);
        command
            .args(["demo-service", "--name", name, "--failing", &failing.to_string()])
            .env("OTEL_SERVICE_NAME", name)
            .env(
                "OTEL_RESOURCE_ATTRIBUTES",
                format!(
                    "service.namespace={NAMESPACE},service.version={release},service.instance.id={instance},\
                     deployment.environment.name=demo"
                ),
            )
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", node)
            .env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{key}"))
            .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
            .env("OTEL_BSP_SCHEDULE_DELAY", "500")
            .env("OTEL_BLRP_SCHEDULE_DELAY", "500")
            .env_remove("TWIN_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        // Ctrl-C is for the parent alone, so that it can end the fleet in good order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let gone = || io::Error::other(format!("'{name}' did not come up"));
        let control = child.stdin.take().ok_or_else(gone)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(gone)?).lines();
        let line = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await.map_err(|_| gone())??;
        let address = line.ok_or_else(gone)?;
        Ok(Self { name, instance, release, address, child, control })
    }

    async fn tell(&mut self, line: &str) -> io::Result<()> {
        self.control.write_all(line.as_bytes()).await?;
        self.control.write_all(b"\n").await?;
        self.control.flush().await
    }

    /// Closes its input, on which it sends what is left and ends; kills it if it does not. Then says that it is gone.
    async fn stop(self, client: Arc<Client>) {
        let Self { name, instance, mut child, control, .. } = self;
        drop(control);
        if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            // It has ended in the meantime, then, or is not ours to end.
            drop(child.kill().await);
        }
        let path = format!("/api/v1/twins/{NAMESPACE}/{name}/instances/{instance}");
        match client.write(Method::DELETE, &path, None, None).await {
            // One that was never heard of need not be taken out.
            Ok(_) | Err(Error::Refused { status: 404, .. }) => {}
            Err(error) => tracing::warn!(%error, instance, "its twin will take it for lost"),
        }
    }
}

/// All of them.
pub(super) struct Fleet {
    program: PathBuf,
    node: String,
    key: String,
    client: Arc<Client>,
    processes: Vec<Process>,
    leaving: JoinSet<()>,
    stage: Stage,
}

impl Fleet {
    /// Starts every service at the good release.
    pub(super) async fn start(node: &str, key: &str, client: Arc<Client>) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut fleet = Self {
            program,
            node: node.to_owned(),
            key: key.to_owned(),
            client,
            processes: Vec::new(),
            leaving: JoinSet::new(),
            stage: Stage::default(),
        };
        for plan in &FLEET {
            fleet.add(plan.name, RELEASE, 0.0).await?;
        }
        fleet.route().await?;
        Ok(fleet)
    }

    /// Where customers go.
    pub(super) fn gateway(&self) -> String {
        self.processes.iter().find(|process| process.name == "gateway").map_or_else(String::new, |p| p.address.clone())
    }

    /// Brings the fleet to a stage.
    pub(super) async fn enter(&mut self, stage: Stage) -> io::Result<()> {
        if stage.bad_release != self.stage.bad_release {
            if stage.bad_release {
                self.add("orders", BAD_RELEASE, BAD_SHARE).await?;
                self.route().await?;
            } else {
                self.roll_back().await?;
            }
        }
        if stage.slow != self.stage.slow {
            let slower = if stage.slow { SLOWER } else { Duration::ZERO };
            for process in self.processes.iter_mut().filter(|process| process.name == "recommendations") {
                process.tell(&format!("slow {}", slower.as_millis())).await?;
            }
        }
        self.stage = stage;
        Ok(())
    }

    /// Ends every service, those first that others depend on least.
    pub(super) async fn stop(mut self) {
        while let Some(process) = self.processes.pop() {
            process.stop(Arc::clone(&self.client)).await;
        }
        while self.leaving.join_next().await.is_some() {}
    }

    async fn add(&mut self, name: &'static str, release: &'static str, failing: f64) -> io::Result<()> {
        let process = Process::start(&self.program, &self.node, &self.key, name, release, failing).await?;
        self.processes.push(process);
        Ok(())
    }

    async fn roll_back(&mut self) -> io::Result<()> {
        let bad = self.processes.iter().position(|process| process.release == BAD_RELEASE);
        let Some(bad) = bad else { return Ok(()) };
        let bad = self.processes.remove(bad);
        self.route().await?;
        // It finishes what it has on its own time.
        self.leaving.spawn(bad.stop(Arc::clone(&self.client)));
        Ok(())
    }

    /// Tells everybody where everybody is.
    async fn route(&mut self) -> io::Result<()> {
        let mut routes: BTreeMap<&str, String> = BTreeMap::new();
        for process in &self.processes {
            let route = routes.entry(process.name).or_insert_with(|| format!("route {}", process.name));
            route.push(' ');
            route.push_str(&process.address);
        }
        for process in &mut self.processes {
            for route in routes.values() {
                process.tell(route).await?;
            }
        }
        Ok(())
    }
}
