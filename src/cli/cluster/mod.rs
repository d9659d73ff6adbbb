//! `twin cluster`: the nodes that share the twins.

mod init;

#[cfg(feature = "demo")]
pub(crate) use self::init::write_cluster;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global,
    client::Client,
    error::Error,
    print::{self, Table, member},
};

/// What `twin cluster` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin cluster                                   nodes, their state, what they own
  twin cluster init my-cluster                   files for three servers and three nodes on this machine
  twin cluster init my-cluster --hosts a,b,c     the same for three machines

A cluster is several nodes over three nats-servers (2.15 or later) with JetStream. Each twin lives on one node; any node
takes any call. 'init' writes certificates, keys and a configuration file for each server and each node.")]
pub struct ClusterArgs {
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
        None => show(&Client::new(global.node(), global.key.as_deref(), global.data_dir())?, json).await,
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
    let mut table = Table::new(&["NODE", "STATE", "SLOTS", "TO OWN", "CLIENTS", "NODES"]);
    for node in nodes {
        let columns = ["node", "state", "owned", "wished", "http", "address"];
        table.row(columns.map(|column| match &node[column] {
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                member(node, column)
            }
        }));
    }
    table.print()?;
    match view["unowned"].as_u64() {
        Some(0) | None => Ok(()),
        Some(unowned) => print::line(&format!(
            "{unowned} of {} slots have no owner at present; calls to their twins wait",
            view["slots"]
        )),
    }
}
