//! What the demo shows: the twins as the API tells of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use console::Style;
use serde::Serialize;

use super::{
    load::Tally,
    plan::{FLEET, NAMESPACE, Stage},
};
use crate::{
    cli::{
        Client, Error,
        live::Live,
        print,
        summary::{self, served},
    },
    twin::service::view::ServiceView,
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
    /// What it calls.
    calls: BTreeSet<String>,
    /// Instances that its twin knows of: those that run, and those that vanished.
    instances: usize,
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
        let (told, failing) = summary::rate_and_failing(&view);
        let failing = if told > 0.0 { failing } else { float(errors) / float(count.max(1)) };
        let rate_max = before.map_or(0.0, |before| before.rate_max).max(told);
        let calls = view.behaviour.iter().flat_map(|behaviour| &behaviour.edges).map(|edge| edge.peer.to_string());
        let calls = calls.collect();
        let instances = view.instances.len();
        self.rows.insert(name, Row { count, rate, rate_max, calls, instances, view: Box::new(view), failing });
    }

    /// Services whose twin has seen traffic.
    pub(super) fn alive(&self) -> usize {
        self.rows.values().filter(|row| row.count > 0 && row.rate_max > 0.0).count()
    }

    fn table(&self) -> print::Table {
        let mut table = print::Table::new(&summary::HEADS);
        for plan in FLEET.iter().rev() {
            let Some(row) = self.rows.get(plan.name) else {
                table.row([format!("{NAMESPACE}/{}", plan.name), "not heard of yet".to_owned()]);
                continue;
            };
            table.row(summary::cells(&row.view, row.rate, row.failing));
        }
        table
    }
}

/// For rates and shares; counts of a demo are far below the bound of exactness.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts of a demo are far below 2^53")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// The terminal, or whatever stands in its place.
pub(super) struct Screen {
    live: Live,
    looks: u64,
    quiet: bool,
}

impl Screen {
    /// Standard output; `quiet` for programs that only want the summary.
    pub(super) fn new(quiet: bool) -> Self {
        Self { live: Live::new(), looks: 0, quiet }
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
        if self.quiet || (!self.live.is_terminal() && self.looks % LINES_EVERY != 1) {
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
        let table = seen.table();
        text.push_str(&if self.live.is_terminal() { table.to_fit(self.live.width()) } else { table.to_string() });
        text.push('\n');
        if self.live.is_terminal() {
            text.push_str(hints);
            return self.live.draw(&text);
        }
        print::line(&text)
    }
}
