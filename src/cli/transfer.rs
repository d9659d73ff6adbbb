//! `twin export` and `twin import`: everything a stopped node keeps, as one file. `app.rs` runs them.

use std::path::PathBuf;

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;

use super::{error::Error, print};

/// What `twin export` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The node must be stopped: two processes never share a data folder.

Examples:
  twin export backup.twins                          from ./twin-data
  twin --data-dir /var/lib/twin export backup.twins")]
pub struct ExportArgs {
    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `twin import` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The data folder must be new or empty; nothing is ever mixed or overwritten.

Examples:
  twin --data-dir ./restored import backup.twins
  twin --data-dir ./restored serve")]
pub struct ImportArgs {
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
