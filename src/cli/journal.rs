//! `twin journal`: who changed what, and when.

use clap::Args;
use serde_json::Value;

use super::{
    client::{Client, twin_path},
    error::Error,
    print::{self, Table},
};

/// What `twin journal` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin journal shop/orders
  twin journal shop/orders --after 120 --limit 50    what changed after revision 120
  twin get shop/orders --at 120                      how it was then")]
pub struct JournalArgs {
    /// The twin
    #[arg(value_name = "ID")]
    id: String,
    /// Only changes after this revision
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: u16,
}

/// Prints.
pub(super) async fn run(client: &Client, args: JournalArgs, json: bool) -> Result<(), Error> {
    let after = args.after.map(|after| format!("&after={after}")).unwrap_or_default();
    let path = twin_path(&args.id)?;
    let value = client.get(&format!("{path}/journal?limit={}{after}", args.limit)).await?;
    if value["entries"].as_array().is_none_or(Vec::is_empty) {
        // A twin that never was has no entries, either.
        client.get(&path).await?;
    }
    if json {
        return print::document(&value);
    }
    let mut table = Table::new(&["REVISION", "WHEN", "WHO", "CHANGE"]);
    for entry in value["entries"].as_array().into_iter().flatten() {
        table.row([
            print::member(entry, "revision"),
            print::member_ago(entry, "at"),
            print::member(entry, "principal"),
            print::cut(&print::plain(&changes(entry)), 100),
        ]);
    }
    if table.is_empty() {
        return print::line("nothing changed");
    }
    table.print()?;
    match value["next"].as_u64() {
        Some(next) => print::line(&format!("there are more: --after {next}")),
        None => Ok(()),
    }
}

fn changes(entry: &Value) -> String {
    let changes = entry["changes"].as_array().into_iter().flatten();
    changes.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
