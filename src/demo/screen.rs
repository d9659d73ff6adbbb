//! What the demo shows: the twins as the API tells of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use console::{Style, Term};
use serde::Serialize;

use super::{
    load::Tally,
    plan::{FLEET, NAMESPACE, Stage},
};
use crate::{
    cli::{Client, Error, print},
    twin::service::view::{OperationView, Presence, ServiceView},
};

/// How often lines are printed where nothing can be drawn over.
const LINES_EVERY: u64 = 5;

/// One service as it is shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Requests it has answered, as its twin counts them.
    pub(super) count: u64,
    /// A second, over the last seconds.
    pub(super) rate: f64,
    /// The best rate it ever had.
    pub(super) rate_max: f64,
    #[serde(skip)]
    view: Box<ServiceView>,
    #[serde(skip)]
    failing: f64,
}

/// What has been seen of the fleet.
#[derive(Default)]
pub(super) struct Seen {
    /// By service.
    pub(super) rows: BTreeMap<&'static str, Row>,
    /// Every alert that was ever open: service, key, since when.
    pub(super) alerts: BTreeSet<(String, String, u64)>,
    looked: Option<tokio::time::Instant>,
}

impl Seen {
    /// Reads every twin.
    pub(super) async fn look(&mut self, client: &Client) -> Result<(), Error> {
        let now = tokio::time::Instant::now();
        let since = self.looked.replace(now).map(|looked| now.duration_since(looked).as_secs_f64());
        for plan in &FLEET {
            let path = format!("/api/v1/twins/{NAMESPACE}/{}?behaviour=true", plan.name);
            match client.read::<ServiceView>(&path).await {
                Ok(view) => self.note(plan.name, view, since),
                // No telemetry yet, so no twin.
                Err(Error::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn note(&mut self, name: &'static str, view: ServiceView, since: Option<f64>) {
        for alert in &view.alerts {
            self.alerts.insert((view.id.to_string(), alert.key.to_string(), alert.opened_at.unix_ms()));
        }
        let (count, errors) = served(&view).fold((0, 0), |(c, e), o| (c + o.count, e + o.errors));
        let before = self.rows.get(name);
        // Telemetry comes in pulses; the mean over a few looks is calmer.
        let rate = match (before, since) {
            (Some(before), Some(since)) if since > 0.0 => {
                0.7 * before.rate + 0.3 * float(count.saturating_sub(before.count)) / since
            }
            (Some(before), _) => before.rate,
            (None, _) => 0.0,
        };
        let told: f64 = served(&view).map(|operation| operation.rate).sum();
        let failing = served(&view).map(|operation| operation.rate * operation.error_ratio).sum::<f64>();
        let failing = if told > 0.0 { failing / told } else { float(errors) / float(count.max(1)) };
        let rate_max = before.map_or(0.0, |before| before.rate_max).max(told);
        self.rows.insert(name, Row { count, rate, rate_max, view: Box::new(view), failing });
    }

    /// Services whose twin has seen traffic.
    pub(super) fn alive(&self) -> usize {
        self.rows.values().filter(|row| row.count > 0 && row.rate_max > 0.0).count()
    }

    fn table(&self) -> print::Table {
        let mut table =
            print::Table::new(&["SERVICE", "HEALTH", "RELEASE", "INSTANCES", "RATE", "FAILING", "P50", "P99", "WHY"]);
        for plan in FLEET.iter().rev() {
            let Some(row) = self.rows.get(plan.name) else {
                table.row([format!("{NAMESPACE}/{}", plan.name), "not heard of yet".to_owned()]);
                continue;
            };
            let view = &row.view;
            let up = view.instances.iter().filter(|instance| instance.presence == Presence::Up).count();
            let releases: BTreeSet<&str> = view
                .instances
                .iter()
                .filter(|instance| instance.presence == Presence::Up)
                .filter_map(|instance| instance.version.as_deref())
                .collect();
            let main = served(view).max_by(|a, b| a.rate.total_cmp(&b.rate));
            let slowest = served(view).filter_map(|operation| operation.p99_s).max_by(f64::total_cmp);
            let reasons: Vec<String> =
                view.health.reasons.iter().map(|reason| format!("{} ({})", reason.subject, reason.code)).collect();
            table.row([
                view.id.to_string(),
                print::status(view.health.status),
                releases.into_iter().collect::<Vec<_>>().join(" + "),
                up.to_string(),
                print::rate(row.rate),
                print::percent(row.failing),
                print::seconds(main.and_then(|operation| operation.p50_s)),
                print::seconds(slowest),
                print::cut(&reasons.join(", "), 60),
            ]);
        }
        table
    }
}

/// The operations that a service offers.
fn served(view: &ServiceView) -> impl Iterator<Item = &OperationView> {
    let operations = view.behaviour.iter().flat_map(|behaviour| &behaviour.operations);
    operations.filter(|operation| operation.kind == "server")
}

/// For rates and shares; counts of a demo are far below the bound of exactness.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts of a demo are far below 2^53")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// The terminal, or whatever stands in its place.
pub(super) struct Screen {
    term: Term,
    lines: usize,
    looks: u64,
    quiet: bool,
}

impl Screen {
    /// Standard output; `quiet` for programs that only want the summary.
    pub(super) fn new(quiet: bool) -> Self {
        Self { term: Term::stdout(), lines: 0, looks: 0, quiet }
    }

    /// Draws over what was drawn before, or prints now and then where that is not possible.
    pub(super) fn show(
        &mut self,
        seen: &Seen,
        stage: Stage,
        since: Duration,
        tally: &Tally,
        hints: &str,
    ) -> Result<(), Error> {
        use std::sync::atomic::Ordering::Relaxed;
        self.looks += 1;
        if self.quiet || (!self.term.is_term() && self.looks % LINES_EVERY != 1) {
            return Ok(());
        }
        let style = if stage == Stage::default() { Style::new().green() } else { Style::new().yellow() };
        let mut text = format!(
            "{}  {}   customers: {} requests, {} failed   alerts so far: {}\n\n",
            print::bold(&format!("{:>4} s", since.as_secs())),
            style.apply_to(stage.told()),
            tally.requests.load(Relaxed),
            tally.errors.load(Relaxed),
            seen.alerts.len(),
        );
        text.push_str(&seen.table().to_string());
        text.push('\n');
        if self.term.is_term() {
            text.push_str(hints);
            let width = usize::from(self.term.size().1);
            let text: Vec<String> = text.lines().map(|line| print::cut(line, width)).collect();
            self.term.clear_last_lines(self.lines).map_err(Error::io("the terminal"))?;
            self.lines = text.len();
            return self.term.write_line(&text.join("\n")).map_err(Error::io("the terminal"));
        }
        print::line(&text)
    }
}
