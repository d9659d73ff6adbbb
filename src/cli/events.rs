//! `twin events`: what happens, as it is committed, with resume after a break.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{
    client::{Client, twin_path},
    error::Error,
    print,
    sse::Event,
};

/// Pause before a broken stream is taken up again, and its bound.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What `twin events` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Each line is a CloudEvent; its id is what --after takes to go on after it. A line that has a 'reason' and no 'id' is no
event and does not count: the node says that events were dropped before they were read, or why it ends the stream.
A broken connection is taken up again after the last event seen. Of one twin the id is its revision, and what was missed
comes from its journal, whatever happened to the node. Of all twins a node keeps its newest events (runtime.events_kept) in
memory: after its restart it tells of a gap, and events go on from there; 'twin journal' has what changed meanwhile.

Examples:
  twin events shop/orders --count 10
  twin events shop/orders --after 17                what came after revision 17
  twin events --after 1795397042000.17              what came after that event, as far as the node keeps it
  twin events | jq -r 'select(.type == \"twin.health.changed\") | .subject'")]
pub struct EventsArgs {
    /// The twin; all if absent
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Only what came after this event
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Prints each event as it is.
pub(super) async fn events(client: &Client, args: EventsArgs) -> Result<(), Error> {
    let print = |event: &Event| print::line(&event.data);
    follow(client, args.id.as_deref(), args.after, args.seconds, args.count.unwrap_or(u64::MAX), print).await
}

/// Hands each event to `take` until the count or the time is over.
pub(super) async fn follow(
    client: &Client,
    id: Option<&str>,
    after: Option<String>,
    seconds: Option<u64>,
    count: u64,
    print: impl Fn(&Event) -> Result<(), Error>,
) -> Result<(), Error> {
    let path = match id {
        Some(id) => {
            let twin = twin_path(id)?;
            if let Err(Error::Refused { status: 404 | 410, .. }) = client.get(&twin).await {
                print::aside(&format!("no twin '{id}' yet; waiting for it"));
            }
            format!("{twin}/events")
        }
        None => "/api/v1/events".to_owned(),
    };
    let followed = followed(client, &path, after, count, print);
    match seconds {
        None => followed.await,
        Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), followed).await.unwrap_or(Ok(())),
    }
}

async fn followed(
    client: &Client,
    path: &str,
    mut after: Option<String>,
    mut count: u64,
    print: impl Fn(&Event) -> Result<(), Error>,
) -> Result<(), Error> {
    // The first connection must stand; later ones are taken up again for as long as it takes.
    let mut stream = client.events(path, after.as_deref()).await?;
    loop {
        while let Ok(Some(event)) = stream.next().await {
            after = event.id.clone().or(after);
            print(&event)?;
            count -= u64::from(!is_about_the_stream(&event));
            if count == 0 {
                return Ok(());
            }
        }
        let mut pause = PAUSE;
        stream = loop {
            tokio::time::sleep(pause).await;
            match client.events(path, after.as_deref()).await {
                Ok(stream) => break stream,
                Err(error) if error.exit_code() == super::code::UNAVAILABLE => pause = (pause * 2).min(PAUSE_MAX),
                Err(error) => return Err(error),
            }
        };
    }
}

/// `12:03:04  shop/orders  #12  health  degraded → unhealthy`.
pub(super) fn readable(event: &Event) -> String {
    let body = print::plain_document(serde_json::from_str(&event.data).unwrap_or(Value::Null));
    if is_about_the_stream(event) {
        return format!("--:--:--  {}", print::member(&body, "reason"));
    }
    let time = print::member(&body, "time");
    let time = time.get(11..19).unwrap_or("--:--:--");
    let data = match body.get("data") {
        None | Some(Value::Null) => String::new(),
        Some(Value::Object(members)) => members
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect::<Vec<_>>()
            .join("  "),
        Some(other) => other.to_string(),
    };
    let subject = print::member(&body, "subject");
    format!(
        "{time}  {}  #{}  {}  {data}",
        print::bold(&subject),
        print::member(&body, "revision"),
        print::plain(&event.kind)
    )
}

/// What the node says of the stream itself is no event of a twin.
fn is_about_the_stream(event: &Event) -> bool {
    matches!(&*event.kind, "gap" | "end")
}

#[cfg(test)]
mod tests {
    use super::{
        super::client::canned::{Canned, canned},
        *,
    };

    #[test]
    fn an_event_reads_as_a_line() {
        let data =
            r#"{"time":"2026-01-31T12:03:04.000Z","subject":"shop/orders","revision":12,"data":{"to":"degraded"}}"#;
        let event = Event { id: Some("1.2".into()), kind: "health".into(), data: data.into() };
        let line = readable(&event);
        assert_eq!(console::strip_ansi_codes(&line), "12:03:04  shop/orders  #12  health  to=degraded");
    }

    #[test]
    fn what_an_event_carries_reaches_no_terminal_as_an_escape() {
        let data = "{\"data\":{\"a\\u001b[31m\":\"\\u001b]52;c;eA==\\u0007\",\"b\":[\"\u{9b}31m\"]}}";
        let event = Event { id: None, kind: "he\u{1b}[2Jalth".into(), data: data.into() };
        let line = console::strip_ansi_codes(&readable(&event)).into_owned();
        assert!(!line.contains(char::is_control) && line.contains("]52;c;eA=="), "{line:?}");
    }

    #[tokio::test]
    async fn what_the_node_says_of_the_stream_counts_as_no_event() {
        let node = Canned::new(|_| {
            canned(
                "200 OK",
                "event: gap\ndata: {}\n\nid: 1.1\nevent: health\ndata: {}\n\nid: 1.2\nevent: health\ndata: {}\n\n",
            )
        })
        .await;
        let seen = parking_lot::Mutex::new(Vec::new());
        let note = |event: &Event| {
            seen.lock().push(event.kind.clone());
            Ok(())
        };
        followed(&node.client(), "/", None, 2, note).await.unwrap();
        assert_eq!(*seen.lock(), ["gap", "health", "health"]);
    }
}
