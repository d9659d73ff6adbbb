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
  twin get shop/orders --json | jq .health.reasons

RATE and FAILING are of the last five minutes, P50 and P99 of the last five to ten; COUNT and ERRORS of all time. With
--json: the same since the beginning (operations[].ever), series at three resolutions, and what is expected of each key
series by its recent mean and by the same hour of last week (baselines).")]
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
    if json { print::document(&value) } else { print::line(text(&typed(value)?).trim_end()) }
}

/// Everything that fits a screen, for people.
pub(super) fn text(view: &ServiceView) -> String {
    let optional = |text: &Option<_>| text.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let mut text = vec![format!(
        "{}  {}  revision {}  version {}  environment {}  in sync: {}\n",
        bold(&view.id),
        print::status(view.health.status),
        view.revision,
        optional(&view.version),
        optional(&view.environment),
        print::yes(view.in_sync),
    )];
    for reason in &view.health.reasons {
        text.push(format!("  {} {} ({})\n", print::status(reason.status), reason.subject, reason.code));
    }
    if view.attributes.text() != "{}" {
        text.push(format!("attributes  {}\n", view.attributes));
    }
    let mut sections = vec![instances(view), features(view), alerts(view)];
    sections.extend(view.behaviour.iter().flat_map(behaviour));
    for table in sections.iter().filter(|table| !table.is_empty()) {
        text.push(format!("\n{table}"));
    }
    if view.instances_beyond > 0 {
        let (kept, more) = (view.instances.len(), view.instances_beyond);
        text.push(format!("\n{more} more instances send telemetry; there is room for the {kept} above\n"));
    }
    if view.commands_live > 0 {
        text.push(format!("\n{} commands have not ended: twin command {} ls\n", view.commands_live, view.id));
    }
    text.concat()
}

fn instances(view: &ServiceView) -> Table {
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
    table
}

fn features(view: &ServiceView) -> Table {
    let mut table = Table::new(&["FEATURE", "IN SYNC", "DESIRED", "REPORTED", "DIFFERS IN"]);
    for feature in &view.features {
        let json = |json: &Option<crate::twin::service::Json>| {
            json.as_ref().map_or_else(|| "-".to_owned(), |json| print::cut(json.text(), 40))
        };
        table.row([
            feature.name.to_string(),
            print::yes(feature.in_sync).to_owned(),
            json(&feature.desired),
            json(&feature.reported),
            json(&feature.delta),
        ]);
    }
    table
}

fn alerts(view: &ServiceView) -> Table {
    let mut table = Table::new(&["ALERT", "STATUS", "OPENED", "VALUE", "EXPECTED"]);
    for alert in &view.alerts {
        table.row([
            alert.key.to_string(),
            print::status(alert.status),
            print::ago(alert.opened_at),
            measure(&alert.key, alert.value),
            measure(&alert.key, alert.expected),
        ]);
    }
    table
}

/// A value of a key series in its unit.
fn measure(key: &str, value: f64) -> String {
    match key.split(' ').next() {
        Some("errors") => print::percent(value),
        Some("duration") => print::seconds(Some(value)),
        Some("rate") => print::rate(value),
        Some(_) | None => format!("{value:.3}"),
    }
}

fn behaviour(view: &BehaviourView) -> [Table; 4] {
    let mut operations =
        Table::new(&["OPERATION", "VERSION", "KIND", "COUNT", "ERRORS", "RATE", "FAILING", "P50", "P99"]);
    for operation in &view.operations {
        operations.row([
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
    let mut edges = Table::new(&["CALLS", "KIND", "COUNT", "ERRORS", "MEAN"]);
    for edge in &view.edges {
        edges.row([
            edge.peer.to_string(),
            format!("{:?}", edge.kind).to_lowercase(),
            edge.count.to_string(),
            edge.errors.to_string(),
            print::seconds(Some(edge.mean_s)),
        ]);
    }
    let mut metrics = Table::new(&["SERIES", "UNIT", "LAST", "SEEN"]);
    for series in &view.series {
        metrics.row([
            print::cut(&series.name, 60),
            series.unit.to_string(),
            format!("{:.3}", series.last),
            print::ago(series.last_at),
        ]);
    }
    let mut errors = Table::new(&["NEWEST ERRORS", "", "TRACE"]);
    for error in view.errors.iter().take(5) {
        errors.row([
            print::ago(error.at),
            print::cut(&error.body, 70),
            error.trace_id.as_deref().unwrap_or("-").to_owned(),
        ]);
    }
    [operations, edges, metrics, errors]
}
