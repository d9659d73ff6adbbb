//! `twin watch`: what happens, live: a table that is drawn over in a terminal, a line for each event elsewhere.

use std::{collections::VecDeque, time::Duration};

use clap::Args;
use parking_lot::Mutex;

use super::{
    client::{Client, twin_path},
    error::{Error, code},
    events, get,
    live::Live,
    ls::Page,
    print::{self, Table},
    sse::Event,
    summary,
};
use crate::twin::service::view::{ServiceView, Status};

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_secs(2);
/// Newest events shown below it.
const EVENTS: usize = 6;
/// Most services shown, however high the terminal is: each is read each time.
const ROWS_MAX: usize = 40;
/// Healths in the order in which somebody wants to see them.
const WORST_FIRST: [Status; 4] = [Status::Unhealthy, Status::Degraded, Status::Unknown, Status::Healthy];

/// What `twin watch` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
In a terminal: a live table, those that are not well first, with the newest events below it; one twin in full if you
name it. Into a pipe or file, or with --lines: a line for each event as it is committed; with --json the event itself.
It goes on by itself until you press Ctrl-C: after a broken connection where it was; after a restart of the node, which
keeps events in memory alone, with a line that tells of the gap and the events from then on.

How to read the table: UP counts instances; RATE and FAILING are of the last five minutes, P50 (of the busiest operation) and P99 (of the
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
        let room = live.height().saturating_sub(EVENTS + 4).max(1);
        let read = match id {
            Some(id) => one(client, id, room).await,
            None => fleet(client, room.min(ROWS_MAX), live.width()).await.map(|text| lines(&text, room + 2)),
        };
        let mut text = or_wait(read)?;
        text.push('\n');
        for line in newest.lock().iter() {
            text.push_str(line);
            text.push('\n');
        }
        live.draw(&text)?;
    }
}

/// A node that does not answer, or is busy, or a twin that cannot come to memory at present, or that is still to come:
/// each may be there soon.
fn or_wait(read: Result<String, Error>) -> Result<String, Error> {
    match read {
        Err(error) if error.exit_code() == code::UNAVAILABLE => Ok(format!("{error}; waiting for it\n")),
        Err(Error::Refused { status: 404 | 410, .. }) => Ok("no such twin yet; waiting for it\n".to_owned()),
        Ok(_) | Err(_) => read,
    }
}

async fn one(client: &Client, id: &str, room: usize) -> Result<String, Error> {
    let view: ServiceView = client.read(&format!("{}?behaviour=true", twin_path(id)?)).await?;
    Ok(lines(&get::text(&view), room))
}

fn lines(text: &str, most: usize) -> String {
    text.lines().take(most).flat_map(|line| [line, "\n"]).collect()
}

/// As many services as there is room for, the worst first.
async fn fleet(client: &Client, room: usize, width: usize) -> Result<String, Error> {
    let (mut table, mut left, mut has_more) = (Table::new(&summary::HEADS), room, false);
    for health in WORST_FIRST {
        if left == 0 {
            has_more = true;
            break;
        }
        let page: Page = client.read(&format!("/api/v1/twins?health={}&limit={left}", health.as_str())).await?;
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
                // Such as a twin whose record does not load: the others are shown all the same.
                Err(error @ Error::Refused { .. }) if error.exit_code() == code::UNAVAILABLE => {
                    table.row(summary::unread(&listed.id, health, &error));
                    left = left.saturating_sub(1);
                }
                Err(error) => return Err(error),
            }
        }
    }
    if table.is_empty() {
        return Ok("no twins yet: send OTLP to the node, or try 'twin demo'\n".to_owned());
    }
    let more = if has_more { "and more: twin ls\n" } else { "" };
    Ok(format!("{}{more}", table.to_fit(width)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::client::canned::{Canned, canned},
        *,
    };

    const BUSY: &str = r#"{"code":"twin-unavailable","detail":"its record does not load","status":503}"#;

    #[tokio::test]
    async fn a_twin_that_is_not_available_is_shown_with_the_reason_among_the_others() {
        let node = Canned::new(|path| match path {
            "/api/v1/twins?health=degraded&limit=9" => canned("200 OK", r#"{"twins":[{"id":"shop/orders"}]}"#),
            "/api/v1/twins/shop/orders?behaviour=true" => canned("503 Service Unavailable", BUSY),
            _ => canned("200 OK", r#"{"twins":[]}"#),
        });
        let shown = fleet(&node.await.client(), 9, 200).await.unwrap();
        let row = shown.lines().find(|line| line.contains("shop/orders")).unwrap();
        assert!(row.contains("degraded") && row.contains("its record does not load"), "{row}");
    }

    #[test]
    fn a_node_that_is_busy_is_waited_for_and_a_refusal_is_not() {
        let refused = |status: u16| {
            let status = reqwest::StatusCode::from_u16(status).unwrap();
            or_wait(Err(Error::refused(status, BUSY.as_bytes())))
        };
        assert!(refused(503).unwrap().ends_with("its record does not load; waiting for it\n"));
        assert!(refused(429).is_ok() && refused(400).is_err() && refused(401).is_err());
        assert!(refused(404).unwrap().contains("no such twin yet"));
    }
}
