//! `twin get`: one twin, now or as it was.

use clap::Args;

use super::{
    client::{Client, segment, twin_path, typed},
    error::Error,
    print::{self, Table, bold},
};
use crate::twin::service::view::{BehaviourView, Presence, ServiceView};

/// What `twin get` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin get shop/orders
  twin get shop/orders --at 12                      as it was at revision 12
  twin get shop/orders --at 2026-01-31T12:00:00Z    as it was then
  twin get shop/orders --json | jq .health.reasons")]
pub struct GetArgs {
    /// The twin: namespace/name, or a name in the namespace 'default'
    #[arg(value_name = "ID")]
    id: String,
    /// As it was at a revision or a time
    #[arg(long, value_name = "REVISION|TIME")]
    at: Option<String>,
}

/// Shows.
pub(super) async fn run(client: &Client, args: GetArgs, json: bool) -> Result<(), Error> {
    let path = twin_path(&args.id)?;
    let path = match &args.at {
        Some(at) => format!("{path}?at={}", segment(at)),
        None => format!("{path}?behaviour=true"),
    };
    let value = client.get(&path).await?;
    if json { print::document(&value) } else { show(&typed(value)?) }
}

fn show(view: &ServiceView) -> Result<(), Error> {
    let optional = |text: &Option<_>| text.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    print::line(&format!(
        "{}  {}  revision {}  version {}  environment {}  in sync: {}",
        bold(&view.id),
        print::status(view.health.status),
        view.revision,
        optional(&view.version),
        optional(&view.environment),
        if view.in_sync { "yes" } else { "no" },
    ))?;
    for reason in &view.health.reasons {
        print::line(&format!("  {} {} ({})", print::status(reason.status), reason.subject, reason.code))?;
    }
    if view.attributes.text() != "{}" {
        print::line(&format!("attributes  {}", view.attributes))?;
    }
    instances(view)?;
    features(view)?;
    alerts(view)?;
    if view.commands_live > 0 {
        print::line(&format!("\n{} commands have not ended: twin command {} ls", view.commands_live, view.id))?;
    }
    view.behaviour.as_ref().map_or(Ok(()), behaviour)
}

fn instances(view: &ServiceView) -> Result<(), Error> {
    let mut table = Table::new(&["INSTANCE", "VERSION", "PRESENCE", "FIRST SEEN", "HEALTH", ""]);
    for instance in &view.instances {
        let presence = match instance.presence {
            Presence::Up => "up",
            Presence::Lost => "lost",
        };
        table.row([
            print::cut(&instance.id, 40),
            instance.version.as_deref().unwrap_or("-").to_owned(),
            presence.to_owned(),
            print::ago(instance.first_seen),
            print::status(instance.health),
            instance.health_reason.to_string(),
        ]);
    }
    section(&table)
}

fn features(view: &ServiceView) -> Result<(), Error> {
    let mut table = Table::new(&["FEATURE", "IN SYNC", "DESIRED", "REPORTED", "DIFFERS IN"]);
    for feature in &view.features {
        let json = |json: &Option<crate::twin::service::Json>| {
            json.as_ref().map_or_else(|| "-".to_owned(), |json| print::cut(json.text(), 40))
        };
        table.row([
            feature.name.to_string(),
            if feature.in_sync { "yes" } else { "no" }.to_owned(),
            json(&feature.desired),
            json(&feature.reported),
            json(&feature.delta),
        ]);
    }
    section(&table)
}

fn alerts(view: &ServiceView) -> Result<(), Error> {
    let mut table = Table::new(&["ALERT", "STATUS", "OPENED", "VALUE", "EXPECTED"]);
    for alert in &view.alerts {
        table.row([
            alert.key.to_string(),
            print::status(alert.status),
            print::ago(alert.opened_at),
            format!("{:.3}", alert.value),
            format!("{:.3}", alert.expected),
        ]);
    }
    section(&table)
}

fn behaviour(view: &BehaviourView) -> Result<(), Error> {
    let mut table = Table::new(&["OPERATION", "VERSION", "KIND", "COUNT", "ERRORS", "RATE", "FAILING", "P50", "P99"]);
    for operation in &view.operations {
        table.row([
            print::cut(&operation.operation, 40),
            operation.version.to_string(),
            operation.kind.to_string(),
            operation.count.to_string(),
            operation.errors.to_string(),
            print::rate(operation.rate),
            print::percent(operation.error_ratio),
            print::seconds(operation.p50_s),
            print::seconds(operation.p99_s),
        ]);
    }
    section(&table)?;
    let mut table = Table::new(&["CALLS", "KIND", "COUNT", "ERRORS", "MEAN"]);
    for edge in &view.edges {
        table.row([
            edge.peer.to_string(),
            format!("{:?}", edge.kind).to_lowercase(),
            edge.count.to_string(),
            edge.errors.to_string(),
            print::seconds(Some(edge.mean_s)),
        ]);
    }
    section(&table)?;
    let mut table = Table::new(&["SERIES", "UNIT", "LAST", "SEEN"]);
    for series in &view.series {
        table.row([
            print::cut(&series.name, 60),
            series.unit.to_string(),
            format!("{:.3}", series.last),
            print::ago(series.last_at),
        ]);
    }
    section(&table)?;
    let mut table = Table::new(&["NEWEST ERRORS", "", "TRACE"]);
    for error in view.errors.iter().take(5) {
        table.row([
            print::ago(error.at),
            print::cut(&error.body, 70),
            error.trace_id.as_deref().unwrap_or("-").to_owned(),
        ]);
    }
    section(&table)
}

fn section(table: &Table) -> Result<(), Error> {
    if table.is_empty() {
        return Ok(());
    }
    print::line("")?;
    table.print()
}
