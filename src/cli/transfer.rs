//! `twin export` and `twin import`: everything a stopped node keeps, as one file. `app.rs` runs them.

use std::path::PathBuf;

use clap::Args;

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
