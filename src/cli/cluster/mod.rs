//! `twin cluster`: the nodes that share the twins.

mod init;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

#[cfg(feature = "demo")]
pub(crate) use self::init::write_cluster;

use super::{
    Global,
    client::Client,
    error::Error,
    print::{self, Table, member},
};

/// How often it is shown with `--watch`.
const AGAIN_EVERY: Duration = Duration::from_secs(2);

/// What `twin cluster` takes.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  twin cluster                                   nodes, their state, what they own, what moves
  twin cluster --watch                           the same every two seconds
  twin cluster init my-cluster                   files for three servers and three nodes on this machine
  twin cluster init my-cluster --hosts a,b,c     the same for three machines

A cluster is several nodes over three nats-servers (2.15 or later) with JetStream. Each twin lives on one node; any node
takes any call. 'init' writes certificates, keys and a configuration file for each server and each node.")]
pub struct ClusterArgs {
    /// Show it again every two seconds
    #[arg(long)]
    watch: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Write configuration files, certificates and keys of three servers and three nodes
    Init(init::InitArgs),
}

/// Runs one of them.
pub(super) async fn run(global: &Global, args: ClusterArgs, json: bool) -> Result<(), Error> {
    match args.action {
        Some(Action::Init(args)) => init::run(&args),
        None => {
            let client = Client::new(global.node(), global.key.as_deref(), global.data_dir())?;
            loop {
                show(&client, json).await?;
                if !args.watch {
                    return Ok(());
                }
                tokio::time::sleep(AGAIN_EVERY).await;
                print::line("")?;
            }
        }
    }
}

async fn show(client: &Client, json: bool) -> Result<(), Error> {
    let view = client.read("/api/v1/cluster").await?;
    if json {
        return print::document(&view);
    }
    let nodes = view["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    if nodes.is_empty() {
        return print::line("this node shares its twins with nobody; see 'twin cluster --help'");
    }
    let mut table = Table::new(&["NODE", "STATE", "SLOTS", "TO OWN", "RENEWED", "CLIENTS", "NODES"]);
    for node in nodes {
        let columns = ["node", "state", "owned", "wished", "silent_ms", "http", "address"];
        table.row(columns.map(|column| match (column, &node[column]) {
            ("silent_ms", Value::Number(ms)) => format!("{:.1} s ago", ms.as_f64().unwrap_or_default() / 1000.0),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                member(node, column)
            }
        }));
    }
    table.print()?;
    let count = |name: &str| view[name].as_u64().unwrap_or_default();
    print::line(&format!(
        "'{}' may answer for another {:.1} s; {} of its calls to others wait",
        member(&view, "node"),
        view["lease_left_ms"].as_f64().unwrap_or_default() / 1000.0,
        count("waiting")
    ))?;
    if count("misplaced") > 0 {
        let (left, slots) = (count("misplaced"), count("slots"));
        let done = (slots.saturating_sub(left) * 100).checked_div(slots).unwrap_or(100);
        print::line(&format!(
            "{left} of {slots} slots are still to move ({done} % are in place), {} of them at this node now",
            count("moving")
        ))?;
    }
    if count("copies_behind") > 0 {
        print::line(&format!(
            "{} copies on the servers are behind, by up to {} messages",
            count("copies_behind"),
            count("lag")
        ))?;
    }
    match count("unowned") {
        0 => Ok(()),
        unowned => print::line(&format!(
            "{unowned} of {} slots have no owner at present; calls to their twins wait",
            view["slots"]
        )),
    }
}
