//! Figures of a row, as one JSON object and as a line of a table.

use serde_json::{Map, Value, json};

use super::{
    drive::Lap,
    machine,
    row::{Bars, Role, Row},
};

/// Most single-call times kept of one contestant.
const SAMPLES_MAX: usize = 2_000_000;

/// All rounds of one row.
pub(crate) struct Line {
    workload: &'static str,
    driver: &'static str,
    durability: &'static str,
    cpus: usize,
    bars: Bars,
    runs: Vec<Runs>,
}

/// All rounds of one contestant.
struct Runs {
    role: Role,
    name: &'static str,
    rates: Vec<f64>,
    nanos: Vec<u32>,
    ops: f64,
    cpu_ns: f64,
}

impl Line {
    /// A line without rounds.
    pub(crate) fn new(row: &Row, cpus: usize) -> Self {
        let runs = row.contestants.iter().map(|contestant| Runs {
            role: contestant.role,
            name: contestant.name,
            rates: Vec::new(),
            nanos: Vec::new(),
            ops: 0.0,
            cpu_ns: 0.0,
        });
        let runs = runs.collect();
        Self { workload: row.workload, driver: row.driver, durability: row.durability, cpus, bars: row.bars, runs }
    }

    /// Takes in one lap of the contestant at `at`.
    pub(crate) fn lap(&mut self, at: usize, lap: &Lap) {
        let runs = &mut self.runs[at];
        runs.rates.push(float(lap.ops) / lap.elapsed.as_secs_f64());
        let room = SAMPLES_MAX.saturating_sub(runs.nanos.len());
        runs.nanos.extend(lap.nanos.iter().take(room));
        runs.ops += float(lap.ops);
        runs.cpu_ns += lap.cpu.as_secs_f64() * 1e9;
    }

    /// The line as one JSON object.
    pub(crate) fn json(&self) -> Value {
        let first = |role| self.runs.iter().find(|runs| runs.role == role);
        let ours = first(Role::Ours);
        let limits = self.runs.iter().filter(|runs| runs.role == Role::Limit);
        let limit = limits.max_by(|a, b| median(&a.rates).total_cmp(&median(&b.rates)));
        let limits = self.runs.iter().filter(|runs| runs.role == Role::Limit);
        let slowest = limits.min_by(|a, b| median(&a.rates).total_cmp(&median(&b.rates)));
        let naive = first(Role::Naive);
        let ratio = |to: Option<&Runs>| Some(ratio(&ours?.rates, &to?.rates));
        let quantile = |runs: Option<&Runs>, at| runs.and_then(|runs| quantile_us(&runs.nanos, at));
        let (ratio_limit, ratio_naive) = (ratio(limit), ratio(naive));
        let (p50, p99) = (quantile(ours, 0.5), quantile(ours, 0.99));
        let limit_p50 = quantile(limit, 0.5);
        let p50_ratio = p50.zip(limit_p50).map(|(ours, limit)| ours / limit);
        let peers = self.bars.peers.map_or(&[][..], |peers| peers.names);
        let peers = self.runs.iter().filter(|runs| peers.contains(&runs.name));
        let fastest = peers.filter_map(|runs| ratio(Some(runs))).min_by(f64::total_cmp);
        let others: Map<String, Value> = self
            .runs
            .iter()
            .filter(|runs| limit.is_none_or(|limit| limit.name != runs.name))
            .filter(|runs| matches!(runs.role, Role::Limit | Role::Other | Role::Figure))
            .map(|runs| {
                if runs.role == Role::Figure {
                    return (runs.name.to_owned(), json!({ "value": round(median(&runs.rates)) }));
                }
                let figures = json!({
                    "per_s": round(median(&runs.rates)), "ratio": ratio(Some(runs)).map(round),
                    "p50_us": quantile(Some(runs), 0.5).map(round), "cpu_ns_each": round(runs.cpu_ns / runs.ops),
                });
                (runs.name.to_owned(), figures)
            })
            .collect();
        let bars = [
            bar("ratio_limit", ratio_limit, self.bars.limit, true),
            bar("ratio_slowest_limit", ratio(slowest), self.bars.slowest_limit, true),
            bar("ratio_naive", ratio_naive, self.bars.naive, true),
            bar("per_s", ours.map(|runs| median(&runs.rates)), self.bars.per_s, true),
            bar("p50_us", p50, self.bars.p50_us, false),
            bar("p99_us", p99, self.bars.p99_us, false),
            bar("p50_ratio_limit", p50_ratio, self.bars.p50_ratio, false),
            bar("ratio_fastest_peer", fastest, self.bars.peers.map(|peers| peers.bar), true),
        ];
        json!({
            "workload": self.workload, "cpus": self.cpus, "driver": self.driver, "allocator": machine::allocator(),
            "ours_per_s": ours.map(|runs| round(median(&runs.rates))),
            "limit_per_s": limit.map(|runs| round(median(&runs.rates))), "ratio_limit": ratio_limit.map(round),
            "naive_per_s": naive.map(|runs| round(median(&runs.rates))), "ratio_naive": ratio_naive.map(round),
            "p50_us": p50.map(round), "p99_us": p99.map(round),
            "cpu_ns_each": ours.map(|runs| round(runs.cpu_ns / runs.ops)),
            "durability": self.durability, "runs": self.runs.first().map_or(0, |runs| runs.rates.len()),
            "limit": limit.map(|runs| runs.name), "limit_p50_us": limit_p50.map(round),
            "limit_cpu_ns_each": limit.map(|runs| round(runs.cpu_ns / runs.ops)),
            "naive_cpu_ns_each": naive.map(|runs| round(runs.cpu_ns / runs.ops)),
            "others": others, "bars": bars.into_iter().flatten().collect::<Vec<_>>(),
        })
    }
}

/// One bar beside its figure.
pub(crate) fn bar(what: &str, value: Option<f64>, bar: Option<f64>, at_least: bool) -> Option<Value> {
    let (value, bar) = (value?, bar?);
    let met = if at_least { value >= bar } else { value <= bar };
    let sign = if at_least { "≥" } else { "≤" };
    Some(json!({ "bar": format!("{what} {sign} {bar}"), "value": round(value), "met": met }))
}

/// The head of the table.
pub(crate) const HEAD: &str = "workload            cpus drv  durability       ours      limit ratio      naive ratio      p50 µs     p99 µs  CPU ns  bars";

/// A JSON line as a line of the table.
pub(crate) fn table_line(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().unwrap_or("–").to_owned();
    let bytes = line.get("ours_bytes").is_some() || line.get("limit_bytes").is_some();
    let main = |who: &str| line[format!("{who}_{}", if bytes { "bytes" } else { "per_s" })].as_f64();
    let mut notes = Vec::new();
    for bar in line["bars"].as_array().into_iter().flatten() {
        let sign = if bar["met"] == true { "✓" } else { "✗" };
        notes.push(format!("{sign} {} ({})", bar["bar"].as_str().unwrap_or(""), bar["value"]));
    }
    if let Some(limit) = line["limit"].as_str() {
        notes.push(format!("limit: {limit}"));
    }
    for (name, figures) in line["others"].as_object().into_iter().flatten() {
        let figure = ["per_s", "bytes", "value"].into_iter().find_map(|what| figures[what].as_f64());
        let figure = short(figure);
        let ratio = figures["ratio"].as_f64().map_or_else(String::new, |ratio| format!(" ({}×)", plain(Some(ratio))));
        notes.push(format!("{name}: {figure}{ratio}"));
    }
    format!(
        "{:<20}{:>4} {:<4} {:<10} {:>10} {:>10} {:>5} {:>10} {:>5} {:>11} {:>10} {:>7}  {}",
        text("workload"),
        line["cpus"].to_string(),
        text("driver"),
        text("durability"),
        short(main("ours")),
        short(main("limit")),
        plain(line["ratio_limit"].as_f64()),
        short(main("naive")),
        plain(line["ratio_naive"].as_f64()),
        plain(line["p50_us"].as_f64()),
        plain(line["p99_us"].as_f64()),
        plain(line["cpu_ns_each"].as_f64()),
        notes.join("  "),
    )
}

fn short(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value >= 1e6 => format!("{:.2} M", value / 1e6),
        Some(value) if value >= 1e4 => format!("{:.1} k", value / 1e3),
        Some(value) if value >= 10.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn plain(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// Median of the ratios of the rounds.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn quantile_us(nanos: &[u32], at: f64) -> Option<f64> {
    let mut sorted = nanos.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    Some(f64::from(sorted[index(float(last) * at)]) / 1e3)
}

/// Three significant digits below 1,000, whole numbers above.
pub(crate) fn round(value: f64) -> f64 {
    let step = if value.abs() < 10.0 {
        1e3
    } else if value.abs() < 1e3 {
        10.0
    } else {
        1.0
    };
    (value * step).round() / step
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts of a bench stay far below 2^52")]
pub(crate) fn float<T: TryInto<u64>>(count: T) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, within a slice"
)]
fn index(at: f64) -> usize {
    at as usize
}
