//! `twin ls`: finds twins in the node's index.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, segment, typed},
    error::Error,
    print::{self, Table},
};
use crate::twin::service::view::Status;

/// Twins asked for at once.
const PAGE: usize = 500;
/// Most twins a page of the API has.
const PAGE_MAX: usize = 1000;

/// What `twin ls` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A search is any number of terms, all of which must hold: health=…, namespace=…, version=…, environment=…,
in_sync=true|false, attr.NAME=VALUE.

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

#[derive(Deserialize)]
struct Page {
    twins: Vec<Listed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
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
    while left > 0 {
        let limit = left.min(if args.limit.is_some() { PAGE_MAX } else { PAGE });
        let from = after.as_deref().map(|id| format!("&after={}", segment(id))).unwrap_or_default();
        let mut page = client.get(&format!("/api/v1/twins?limit={limit}{query}{from}")).await?;
        let Page { twins: found, next } = typed(page.clone())?;
        left -= found.len().min(left);
        if json {
            twins.extend(page["twins"].as_array_mut().map(std::mem::take).unwrap_or_default());
        } else {
            show(&found, args.quiet)?;
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
    if let (Some(next), false) = (more, args.quiet) {
        print::line(&format!("there are more: --after {next}"))?;
    }
    Ok(())
}

fn show(found: &[Listed], quiet: bool) -> Result<(), Error> {
    if quiet {
        return found.iter().try_for_each(|twin| print::line(&twin.id));
    }
    let mut table = Table::new(&["TWIN", "HEALTH", "VERSION", "ENVIRONMENT", "IN SYNC", "ATTRIBUTES"]);
    for twin in found {
        let term = |name: &str| text(twin.terms.get(name));
        let health = match term("health").as_str() {
            "healthy" => print::status(Status::Healthy),
            "degraded" => print::status(Status::Degraded),
            "unhealthy" => print::status(Status::Unhealthy),
            _ => print::status(Status::Unknown),
        };
        let attributes: Vec<String> = twin
            .terms
            .iter()
            .filter_map(|(name, value)| Some(format!("{}={}", name.strip_prefix("attr.")?, text(Some(value)))))
            .collect();
        table.row([
            twin.id.clone(),
            health,
            term("version"),
            term("environment"),
            term("in_sync"),
            print::cut(&attributes.join(" "), 60),
        ]);
    }
    if table.is_empty() { print::line("no twins") } else { table.print() }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}
