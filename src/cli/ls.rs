//! `twin ls`: finds twins in the node's index.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, segment, twin_path, typed},
    error::Error,
    print::{self, Table},
    summary,
};
use crate::twin::service::view::{ServiceView, Status};

/// Twins asked for at once.
const PAGE: usize = 500;
/// Most twins a page of the API has.
const PAGE_MAX: usize = 1000;

/// Most twins of which is read why they are not well: the index does not know.
const REASONS_MAX: usize = 50;

/// What `twin ls` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A search is any number of terms, all of which must hold: health=…, namespace=…, version=…, environment=…,
in_sync=true|false, instances=NUMBER, name=…, attr.NAME=VALUE.
WHY says what makes a twin unwell, for the first 50 that are: 'errors' is an alert on the service, 'errors POST /orders
(2.0.0)' one on an operation in a version, 'orders-1 (instance.lost)' an instance that fell silent without a goodbye.

Examples:
  twin ls
  twin ls health=degraded attr.owner=team-a
  twin ls namespace=shop --limit 20 --after shop/orders
  twin ls health=unhealthy --json | jq -r '.twins[].id'")]
pub struct LsArgs {
    /// What must hold: name=value
    #[arg(value_name = "TERM")]
    terms: Vec<String>,
    /// Only those after this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// At most so many; all if absent
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Print ids alone
    #[arg(long, short)]
    quiet: bool,
}

/// A page of the API's list of twins.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) twins: Vec<Listed>,
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default)]
    terms: Map<String, Value>,
}

/// Lists.
pub(super) async fn run(client: &Client, args: LsArgs, json: bool) -> Result<(), Error> {
    let mut query = String::new();
    for term in &args.terms {
        let Some((name, value)) = term.split_once('=') else {
            return Err(Error::Usage(format!("'{term}' is no term; write name=value, such as health=degraded")));
        };
        query.extend(["&", &segment(name), "=", &segment(value)]);
    }
    let (mut after, mut left) = (args.after, args.limit.unwrap_or(usize::MAX));
    let (mut twins, mut more) = (Vec::new(), None);
    let mut shown = Shown { table: Table::new(&HEADS), reasons_left: REASONS_MAX, any: false };
    while left > 0 {
        let limit = left.min(if args.limit.is_some() { PAGE_MAX } else { PAGE });
        let from = after.as_deref().map(|id| format!("&after={}", segment(id))).unwrap_or_default();
        let mut page = client.get(&format!("/api/v1/twins?limit={limit}{query}{from}")).await?;
        let Page { twins: found, next } = typed(page.clone())?;
        left -= found.len().min(left);
        if json {
            twins.extend(page["twins"].as_array_mut().map(std::mem::take).unwrap_or_default());
        } else if args.quiet {
            found.iter().try_for_each(|twin| print::line(&twin.id))?;
        } else {
            shown.page(client, &found).await?;
        }
        more.clone_from(&next);
        match next {
            Some(next) if !found.is_empty() => after = Some(next),
            Some(_) | None => break,
        }
    }
    if json {
        return print::document(&json!({ "twins": twins, "next": more }));
    }
    if !shown.any && !args.quiet {
        print::line("no twins")?;
    }
    if let (Some(next), false) = (more, args.quiet) {
        print::line(&format!("there are more: --after {next}"))?;
    }
    Ok(())
}

const HEADS: [&str; 7] = ["TWIN", "HEALTH", "VERSION", "ENVIRONMENT", "IN SYNC", "WHY", "ATTRIBUTES"];

/// What was printed, so that pages look like one table.
struct Shown {
    table: Table,
    reasons_left: usize,
    any: bool,
}

impl Shown {
    async fn page(&mut self, client: &Client, found: &[Listed]) -> Result<(), Error> {
        if self.any {
            self.table = self.table.below();
        }
        for twin in found {
            let term = |name: &str| text(twin.terms.get(name));
            let health =
                twin.terms.get("health").and_then(|health| Status::deserialize(health).ok()).unwrap_or_default();
            let mut why = String::new();
            if health >= Status::Degraded && self.reasons_left > 0 {
                self.reasons_left -= 1;
                why = reasons(client, &twin.id).await?;
            }
            let attributes: Vec<String> = twin
                .terms
                .iter()
                .filter_map(|(name, value)| Some(format!("{}={}", name.strip_prefix("attr.")?, text(Some(value)))))
                .collect();
            self.table.row([
                twin.id.clone(),
                print::status(health),
                term("version"),
                term("environment"),
                twin.terms.get("in_sync").map_or_else(|| "-".to_owned(), |is| print::yes(is == "true").to_owned()),
                print::cut(&why, 60),
                print::cut(&attributes.join(" "), 60),
            ]);
        }
        if self.table.is_empty() || found.is_empty() {
            return Ok(());
        }
        self.any = true;
        self.table.print()
    }
}

/// Why a twin is not well.
async fn reasons(client: &Client, id: &str) -> Result<String, Error> {
    match client.read::<ServiceView>(&twin_path(id)?).await {
        Ok(view) => Ok(summary::why(&view)),
        // Removed since it was listed, or not for this key to read.
        Err(Error::Refused { .. }) => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}
