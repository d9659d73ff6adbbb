//! `twin key`: who may do what.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, segment},
    error::Error,
    print::{self, Table},
    time,
};
use crate::token;

/// Keys asked for at once.
const PAGE: u16 = 200;

/// What `twin key` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin key new ingest shop --label collector     telemetry for every service of the namespace 'shop'
  twin key new service shop/orders               what the service 'shop/orders' may do itself
  twin key new operator --label ci               everything
  KEY=$(twin key new service shop/orders)        the key alone is on standard output
  twin key ls
  twin key rotate 00f1a2b3c4d5e6f7 --overlap 7d  another key in its place; the old one counts for seven days more
  twin key revoke 00f1a2b3c4d5e6f7
  twin key revoke --service shop/orders          every key that the service has by now")]
pub struct KeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Make a key; it is shown once
    New {
        #[command(subcommand)]
        kind: Kind,
    },
    /// List keys; their secrets are not kept
    Ls,
    /// Make a key that takes the place of another one, of the same kind and label
    Rotate {
        /// The old one's id, as 'twin key ls' shows it, or the old key itself
        #[arg(value_name = "ID")]
        id: String,
        /// How long the old one goes on to count, such as 30m, 24h or 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time::duration)]
        overlap: Duration,
    },
    /// Revoke a key, or those of a service, at once and for good
    Revoke(Revoke),
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["id", "service"]))]
struct Revoke {
    /// Its id, as 'twin key ls' shows it, or the key itself
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Every key of this service: namespace/name
    #[arg(long, value_name = "ID")]
    service: Option<String>,
    /// Of a service's keys only those made before: RFC 3339, or 'now'
    #[arg(long, value_name = "TIME", default_value = "now", requires = "service")]
    issued_before: String,
}

#[derive(Clone, Debug, Subcommand)]
enum Kind {
    /// May do everything
    Operator {
        /// A word to know it by
        #[arg(long, default_value = "")]
        label: String,
    },
    /// May send telemetry for the services of one namespace
    Ingest {
        /// The namespace
        #[arg(value_name = "NAMESPACE")]
        namespace: String,
        /// A word to know it by
        #[arg(long, default_value = "")]
        label: String,
    },
    /// May do what one service does itself
    Service {
        /// The service: namespace/name
        #[arg(value_name = "ID")]
        service: String,
        /// A word to know it by
        #[arg(long, default_value = "")]
        label: String,
    },
}

/// Runs one of them.
pub(super) async fn run(client: &Client, args: KeyArgs, json: bool) -> Result<(), Error> {
    match args.action {
        Action::New { kind } => {
            let body = match kind {
                Kind::Operator { label } => json!({ "kind": "operator", "label": label }),
                Kind::Ingest { namespace, label } => {
                    json!({ "kind": "ingest", "namespace": namespace, "label": label })
                }
                Kind::Service { service, label } => json!({ "kind": "service", "service": service, "label": label }),
            };
            let made = client.write(Method::POST, "/api/v1/keys", Some(&body), None).await?;
            if json { print::document(&made) } else { show(&made) }
        }
        Action::Ls => list(client, json).await,
        Action::Rotate { id, overlap } => {
            let id = id_of(&id);
            let body = json!({ "overlap_s": overlap.as_secs() });
            let path = format!("/api/v1/keys/{}/rotate", segment(&id));
            let made = client.write(Method::POST, &path, Some(&body), None).await?;
            if json {
                return print::document(&made);
            }
            show(&made)?;
            print::aside(&format!("key {id} goes on to count for {}", print::span(overlap)));
            Ok(())
        }
        Action::Revoke(revoke) => self::revoke(client, revoke, json).await,
    }
}

async fn revoke(client: &Client, revoke: Revoke, json: bool) -> Result<(), Error> {
    if let Some(service) = revoke.service {
        let mut body = json!({ "service": service });
        if revoke.issued_before != "now" {
            body["issued_before"] = revoke.issued_before.into();
        }
        let revoked = client.write(Method::POST, "/api/v1/keys/revoke", Some(&body), None).await?;
        if json {
            return print::document(&revoked);
        }
        let keys = revoked["keys"].as_array().map_or(0, Vec::len);
        return print::line(&format!("{keys} keys of {service} are revoked"));
    }
    let id = id_of(&revoke.id.unwrap_or_default());
    let path = format!("/api/v1/keys/{}", segment(&id));
    let revoked = client.write(Method::DELETE, &path, None, None).await?;
    if json { print::document(&revoked) } else { print::line(&format!("key {id} is revoked")) }
}

/// The id of a key, from itself if that is given.
fn id_of(text: &str) -> String {
    token::show(text).map_or_else(|_| text.to_owned(), |said| said.id.into())
}

/// The key alone on standard output, so that $(twin key new …) is the key.
fn show(made: &Value) -> Result<(), Error> {
    let key = print::member(made, "key");
    print::line(&key)?;
    print::aside("keep it: it is not shown again");
    print::aside(&format!("for OpenTelemetry: OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20{key}'"));
    Ok(())
}

async fn list(client: &Client, json: bool) -> Result<(), Error> {
    let (mut keys, mut after) = (Vec::<Value>::new(), String::new());
    loop {
        let mut page = client.get(&format!("/api/v1/keys?limit={PAGE}{after}")).await?;
        keys.extend(page["keys"].as_array_mut().map(std::mem::take).unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", segment(next)),
            None => break,
        }
    }
    if json {
        return print::document(&json!({ "keys": keys }));
    }
    let mut table = Table::new(&["ID", "KIND", "COVERS", "LABEL", "MADE", "ENDS"]);
    for key in &keys {
        let covers = ["namespace", "service"].map(|name| print::member(key, name));
        table.row([
            print::member(key, "id"),
            print::member(key, "kind"),
            covers.into_iter().find(|covers| covers != "-").unwrap_or_else(|| "everything".into()),
            print::member(key, "label"),
            print::member_ago(key, "created_at"),
            print::member_when(key, "revoked_at"),
        ]);
    }
    if table.is_empty() { print::line("no keys") } else { table.print() }
}
