//! `twin demo`: a node and a small fleet of real HTTP services in one terminal.
//!
//! ```text
//! load ─▶ gateway ─▶ orders ─▶ payments          each a process of its own, instrumented with the ordinary
//!            │          └────▶ inventory         OpenTelemetry SDK and configured by its environment variables
//!            └─▶ recommendations ─▶ inventory
//!                     │ OTLP over gRPC, with an ingest key
//!                     ▼
//!                   node ◀── the screen reads the twins over the API, as anybody would
//! ```
//!
//! Nothing is simulated but the customers, a database and a broker. A service that is stopped in good order is taken out
//! of its twin by whoever stops it, as a deployment would: only what vanishes is lost. Start at [`run`]; [`serve`] is one
//! service of the fleet, and what happens when is in `plan.rs`. `cluster` is another demo, of several nodes.

#[cfg(feature = "cluster")]
mod cluster;
mod fleet;
mod load;
mod plan;
mod run;
mod screen;
mod service;
mod telemetry;

use std::time::Duration;

use clap::Args;

pub use self::{run::run, service::serve};

/// What `twin demo` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A day of the fleet passes in a minute: traffic comes in waves, a bad release of 'orders' goes out and is rolled back,
and 'recommendations' gets slow for a while, all within four minutes, or within --for. While it runs, ask the twins in
another terminal; the hints below the table are ready to paste.

Examples:
  twin demo                            until Ctrl-C
  twin demo --for 30s                  ends by itself with a summary; exit code 0 if every twin saw traffic
  twin demo --port 0 --data-dir ./d    on a free port, and the twins stay in ./d for 'twin serve'
  twin demo --cluster                  three nats-servers and three nodes, of which one is killed under load, again and
                                       again; exit code 0 if nothing that was acknowledged is lost")]
pub struct DemoArgs {
    /// End by itself after this time: 30s, 5m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Where the node listens; 0 for any free port
    #[arg(long, value_name = "PORT", default_value_t = 7070)]
    port: u16,
    /// Show a cluster instead: three servers, three nodes, and what happens when a node dies
    #[cfg(feature = "cluster")]
    #[arg(long, conflicts_with = "port")]
    cluster: bool,
    /// The nats-server (2.15 or later) that --cluster starts
    #[cfg(feature = "cluster")]
    #[arg(long, value_name = "PROGRAM", env = "NATS_SERVER", default_value = "nats-server")]
    nats_server: std::path::PathBuf,
}

/// What a service of the fleet is started with; everything about telemetry is in its environment.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// Which one it is
    #[arg(long)]
    name: String,
    /// Share of requests it fails
    #[arg(long, default_value_t = 0.0)]
    failing: f64,
}

/// `30s`, `5m`, `500ms`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time: write 30s or 5m");
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        assert_eq!(duration("8s"), Ok(Duration::from_secs(8)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "3h", "1.5s", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
