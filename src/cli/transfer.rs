//! `twin export` and `twin import`: everything a stopped node keeps, as one file. `app.rs` runs them.

use std::path::PathBuf;

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;

use super::{error::Error, print};

/// What `twin export` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The node must be stopped: two processes never share a data folder. Nodes of a cluster may run; what they write
meanwhile may be missing, each twin is whole.

Examples:
  twin export backup.twins                          from ./twin-data
  twin --data-dir /var/lib/twin export backup.twins
  twin export backup.twins --config node-1.toml     from the cluster that this file names")]
pub struct ExportArgs {
    /// Configuration file of the node [default: twin.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `twin import` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The data folder, or the cluster, must be new or empty; nothing is ever mixed or overwritten. An import into a cluster
that is cut off leaves a part there: begin again with servers that are empty, or another cluster.name.

Examples:
  twin --data-dir ./restored import backup.twins
  twin --data-dir ./restored serve
  twin import backup.twins --config node-1.toml     into the new cluster that this file names, before its nodes start")]
pub struct ImportArgs {
    /// Configuration file of the node [default: twin.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The file to read
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// How far a transfer is, on standard error.
pub struct Bar {
    drawn: ProgressBar,
    what: String,
    json: bool,
}

impl Bar {
    /// Begins; draws nothing where nobody looks.
    pub fn new(what: &str, json: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { drawn: bar, what: what.to_owned(), json }
    }

    /// So many items of so many bytes together.
    pub fn at(&self, items: u64, bytes: u64) {
        self.drawn.set_message(format!("{}: {} items, {}", self.what, HumanCount(items), HumanBytes(bytes)));
        self.drawn.tick();
    }

    /// That is all.
    pub fn done(self, items: u64, bytes: u64) -> Result<(), Error> {
        self.drawn.finish_and_clear();
        if self.json {
            return print::document(&json!({ "items": items, "bytes": bytes }));
        }
        print::line(&format!("{} done: {} items, {}", self.what, HumanCount(items), HumanBytes(bytes)))
    }
}
