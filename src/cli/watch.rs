//! `twin watch`: what happens, live: a table that is drawn over in a terminal, a line for each event elsewhere.

use std::{collections::VecDeque, time::Duration};

use clap::Args;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    client::{Client, twin_path},
    error::Error,
    events, get,
    live::Live,
    print::{self, Table},
    sse::Event,
    summary,
};
use crate::twin::service::view::ServiceView;

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_secs(2);
/// Newest events shown below it.
const EVENTS: usize = 6;
/// Most services shown, however high the terminal is: each is read each time.
const ROWS_MAX: usize = 40;
/// Healths in the order in which somebody wants to see them.
const WORST_FIRST: [&str; 4] = ["unhealthy", "degraded", "unknown", "healthy"];

/// What `twin watch` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
In a terminal: a live table, those that are not well first, with the newest events below it; one twin in full if you
name it. Into a pipe or file, or with --lines: a line for each event as it is committed; with --json the event itself.
It goes on by itself where it was when the connection breaks or the node restarts, until you press Ctrl-C.

How to read the table: RATE and FAILING are of the last five minutes, P50 (of the busiest operation) and P99 (of the
slowest) of the last five to ten. WHY names alerts and whatever else makes a service unwell: 'errors POST /orders (2.0.0)'
is an alert on that operation in that version. 'twin get ID' has the rest.

Examples:
  twin watch                                        the whole fleet
  twin watch shop/orders                            one service
  twin watch --lines | grep health                  transitions of health as they happen
  twin watch --for 60                               for a minute")]
pub struct WatchArgs {
    /// The twin; all if absent
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Print a line for each event, also in a terminal
    #[arg(long)]
    lines: bool,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    twins: Vec<Listed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// Watches.
pub(super) async fn run(client: &Client, args: WatchArgs, json: bool) -> Result<(), Error> {
    let id = args.id.as_deref();
    let live = Live::new();
    if json || args.lines || !live.is_terminal() {
        let line = |event: &Event| if json { print::line(&event.data) } else { print::line(&events::readable(event)) };
        return events::follow(client, id, None, args.seconds, u64::MAX, line).await;
    }
    let newest = Mutex::new(VecDeque::new());
    let note = |event: &Event| {
        let mut newest = newest.lock();
        newest.push_back(events::readable(event));
        if newest.len() > EVENTS {
            newest.pop_front();
        }
        Ok(())
    };
    tokio::select! {
        followed = events::follow(client, id, None, args.seconds, u64::MAX, note) => followed,
        drawn = draw(client, id, live, &newest) => drawn,
    }
}

async fn draw(
    client: &Client,
    id: Option<&str>,
    mut live: Live,
    newest: &Mutex<VecDeque<String>>,
) -> Result<(), Error> {
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let room = live.height().saturating_sub(EVENTS + 4).clamp(1, ROWS_MAX);
        let text = match id {
            Some(id) => one(client, id, room).await,
            None => fleet(client, room).await,
        };
        let mut text = match text {
            Ok(text) => text,
            Err(error @ Error::Unreachable { .. }) => format!("{error}; waiting for it\n"),
            Err(error) => return Err(error),
        };
        text.push('\n');
        for line in newest.lock().iter() {
            text.push_str(line);
            text.push('\n');
        }
        live.draw(&text)?;
    }
}

async fn one(client: &Client, id: &str, room: usize) -> Result<String, Error> {
    let view: ServiceView = client.read(&format!("{}?behaviour=true", twin_path(id)?)).await?;
    Ok(get::text(&view).lines().take(room).flat_map(|line| [line, "\n"]).collect())
}

/// As many services as there is room for, the worst first.
async fn fleet(client: &Client, room: usize) -> Result<String, Error> {
    let (mut table, mut left, mut has_more) = (Table::new(&summary::HEADS), room, false);
    for health in WORST_FIRST {
        if left == 0 {
            has_more = true;
            break;
        }
        let page: Page = client.read(&format!("/api/v1/twins?health={health}&limit={left}")).await?;
        has_more |= page.next.is_some();
        for listed in page.twins {
            match client.read::<ServiceView>(&format!("{}?behaviour=true", twin_path(&listed.id)?)).await {
                Ok(view) => {
                    let (rate, failing) = summary::rate_and_failing(&view);
                    table.row(summary::cells(&view, rate, failing));
                    left = left.saturating_sub(1);
                }
                // Removed between the two readings.
                Err(Error::Refused { status: 404 | 410, .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    if table.is_empty() {
        return Ok("no twins yet: send OTLP to the node, or try 'twin demo'\n".to_owned());
    }
    let more = if has_more { "and more: twin ls\n" } else { "" };
    Ok(format!("{table}{more}"))
}
