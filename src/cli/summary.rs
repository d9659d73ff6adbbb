//! A service in one row, as `twin watch` and the demo show it.

use std::collections::BTreeSet;

use super::print;
use crate::twin::service::view::{OperationView, Presence, ServiceView, Status};

/// What stands above the rows.
pub(crate) const HEADS: [&str; 9] = ["SERVICE", "HEALTH", "RELEASE", "UP", "RATE", "FAILING", "P50", "P99", "WHY"];
/// Longest reason shown.
const WHY_WIDTH: usize = 60;

/// The row.
pub(crate) fn cells(view: &ServiceView, rate: f64, failing: f64) -> [String; 9] {
    let up = || view.instances.iter().filter(|instance| instance.presence == Presence::Up);
    let releases: BTreeSet<&str> = up().filter_map(|instance| instance.version.as_deref()).collect();
    let busiest = served(view).max_by(|a, b| a.rate.total_cmp(&b.rate));
    let slowest = served(view).filter_map(|operation| operation.p99_s).max_by(f64::total_cmp);
    [
        view.id.to_string(),
        print::status(view.health.status),
        releases.into_iter().collect::<Vec<_>>().join(" + "),
        up().count().to_string(),
        print::rate(rate),
        print::percent(failing),
        print::seconds(busiest.and_then(|operation| operation.p50_s)),
        print::seconds(slowest),
        print::cut(&why(view), WHY_WIDTH),
    ]
}

/// The row of a service that could not be read.
pub(crate) fn unread(id: &str, health: Status, why: &impl ToString) -> [String; 9] {
    let not = || "-".to_owned();
    let why = print::cut(&why.to_string(), WHY_WIDTH);
    [id.to_owned(), print::status(health), not(), not(), not(), not(), not(), not(), why]
}

/// Why its health is what it is.
pub(crate) fn why(view: &ServiceView) -> String {
    let reasons = view.health.reasons.iter().map(|reason| match reason.code.as_str() {
        // An alert's name says what is wrong.
        "alert" => reason.subject.to_string(),
        code => format!("{} ({code})", reason.subject),
    });
    reasons.collect::<Vec<_>>().join(", ")
}

/// The operations that a service offers.
pub(crate) fn served(view: &ServiceView) -> impl Iterator<Item = &OperationView> {
    let operations = view.behaviour.iter().flat_map(|behaviour| &behaviour.operations);
    operations.filter(|operation| matches!(operation.kind.as_str(), "server" | "consumer"))
}

/// Requests a second over the last minutes, and the share of them that failed.
pub(crate) fn rate_and_failing(view: &ServiceView) -> (f64, f64) {
    // A sum of nothing is -0.0.
    let rate: f64 = served(view).map(|operation| operation.rate).fold(0.0, |sum, rate| sum + rate);
    let failing: f64 = served(view).map(|operation| operation.rate * operation.error_ratio).sum();
    (rate, if rate > 0.0 { failing / rate } else { 0.0 })
}
