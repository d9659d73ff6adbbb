//! `twin rm`: removes a twin.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use reqwest::Method;

use super::{
    client::{Client, twin_path},
    error::Error,
    print,
};

/// What `twin rm` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
State, history, commands and journal go; a tombstone stays, so that the revision goes on growing. A service that still
sends telemetry gets a new twin with its next batch. Without a terminal to ask in, --yes is needed.

Examples:
  twin rm shop/orders
  twin rm shop/orders --yes --if-match 12")]
pub struct RmArgs {
    /// The twin
    #[arg(value_name = "ID")]
    id: String,
    /// Only if the twin's revision is this one
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
    /// Do not ask; needed where there is no terminal to ask in
    #[arg(long, short)]
    yes: bool,
}

/// Removes.
pub(super) async fn run(client: &Client, args: RmArgs, json: bool) -> Result<(), Error> {
    let path = twin_path(&args.id)?;
    confirm(&format!("the twin '{}' with everything that is its", args.id), args.yes)?;
    let removed = client.write(Method::DELETE, &path, None, args.if_match).await?;
    if json { print::document(&removed) } else { print::line(&format!("'{}' is removed", args.id)) }
}

/// Asks whether something shall be removed, unless that was said.
pub(super) fn confirm(what: &str, is_said: bool) -> Result<(), Error> {
    if is_said {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!("{what} was not removed: there is no terminal to ask in; say --yes")));
    }
    let mut out = std::io::stderr();
    let asked = write!(out, "Remove {what}? [y/N] ").and_then(|()| out.flush());
    asked.map_err(Error::io("the terminal"))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Error::io("the terminal"))?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err(Error::Usage(format!("{what} was not removed"))) }
}
