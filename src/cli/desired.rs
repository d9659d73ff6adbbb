//! `twin desired`: what a service shall be, and what it is.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::{
    client::{Client, segment, twin_path, typed},
    error::Error,
    print::{self, Table, bold},
};
use crate::twin::service::{Json, view::FeatureView};

/// What `twin desired` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin desired shop/orders limits                          what shall be, what is, and the difference
  twin desired shop/orders limits set '{\"rps\": 100, \"burst\": 20}'
  twin desired shop/orders limits merge '{\"rps\": 50}'      change one field, keep the others (RFC 7396)
  twin desired shop/orders limits set '{\"rps\": 1}' --if-match 12
  twin desired shop/orders limits rm")]
pub struct DesiredArgs {
    /// The twin
    #[arg(value_name = "ID")]
    id: String,
    /// The feature
    #[arg(value_name = "FEATURE")]
    feature: String,
    #[command(subcommand)]
    action: Option<Action>,
    /// Only if the twin's revision is this one
    #[arg(long, global = true, value_name = "REVISION")]
    if_match: Option<u64>,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Show it (as without an action)
    Get,
    /// Put a document in its place
    Set {
        /// The document
        #[arg(value_name = "JSON")]
        document: String,
    },
    /// Change the fields that a merge patch names
    Merge {
        /// The patch; null takes a field away
        #[arg(value_name = "JSON")]
        document: String,
    },
    /// Take it away
    Rm,
}

/// Reads or changes.
pub(super) async fn run(client: &Client, args: DesiredArgs, json: bool) -> Result<(), Error> {
    let feature = format!("{}/features/{}", twin_path(&args.id)?, segment(&args.feature));
    let desired = format!("{feature}/desired");
    let (method, body) = match args.action.unwrap_or(Action::Get) {
        Action::Get => {
            let value = client.get(&feature).await?;
            return if json { print::document(&value) } else { show(&typed(value)?) };
        }
        Action::Set { document } => (Method::PUT, Some(parse(&document)?)),
        Action::Merge { document } => (Method::PATCH, Some(parse(&document)?)),
        Action::Rm => (Method::DELETE, None),
    };
    let written = client.write(method, &desired, body.as_ref(), args.if_match).await?;
    if json { print::document(&written) } else { print::line(&format!("revision {}", written["revision"])) }
}

/// Reads a document given on the command line.
pub(super) fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::Usage(format!("'{text}' is not JSON: {error}")))
}

fn show(view: &FeatureView) -> Result<(), Error> {
    let text = |json: &Option<Json>| json.as_ref().map_or_else(|| "-".to_owned(), |json| json.text().to_owned());
    print::line(&format!("{}  in sync: {}  revision {}", bold(&view.name), print::yes(view.in_sync), view.revision))?;
    print::line(&format!("  desired    {}  (revision {})", text(&view.desired), view.desired_version))?;
    print::line(&format!("  reported   {}  (revision {})", text(&view.reported), view.reported_version))?;
    print::line(&format!("  effective  {}", text(&view.effective)))?;
    print::line(&format!("  differs in {}", text(&view.delta)))?;
    if let Some(since) = view.diverged_since {
        print::line(&format!("  since      {}", print::ago(since)))?;
    }
    let mut table = Table::new(&["INSTANCE", "HAS", "SAID", "ERROR"]);
    for said in &view.acknowledgements {
        table.row([
            said.instance.to_string(),
            said.version.to_string(),
            print::ago(said.at),
            said.error.as_deref().unwrap_or("-").to_owned(),
        ]);
    }
    if table.is_empty() { Ok(()) } else { table.print() }
}
