//! `twin key`: who may do what.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, segment},
    error::Error,
    print::{self, Table},
};

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
  twin key revoke 00f1a2b3c4d5e6f7")]
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
    /// Revoke a key, at once and for good
    Revoke {
        /// Its id: the 16 digits after 'twk_'
        #[arg(value_name = "ID")]
        id: String,
    },
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
            if json {
                return print::document(&made);
            }
            let key = print::member(&made, "key");
            // The key alone, so that $(twin key new …) is the key.
            print::line(&key)?;
            print::aside("keep it: it is not shown again");
            print::aside(&format!("for OpenTelemetry: OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20{key}'"));
            Ok(())
        }
        Action::Ls => list(client, json).await,
        Action::Revoke { id } => {
            let id = id.strip_prefix("twk_").unwrap_or(&id);
            let id = id.split('_').next().unwrap_or(id);
            let path = format!("/api/v1/keys/{}", segment(id));
            let revoked = client.write(Method::DELETE, &path, None, None).await?;
            if json { print::document(&revoked) } else { print::line(&format!("key {id} is revoked")) }
        }
    }
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
    let mut table = Table::new(&["ID", "KIND", "COVERS", "LABEL", "MADE", "REVOKED"]);
    for key in &keys {
        let covers = ["namespace", "service"].map(|name| print::member(key, name));
        table.row([
            print::member(key, "id"),
            print::member(key, "kind"),
            covers.into_iter().find(|covers| covers != "-").unwrap_or_else(|| "everything".into()),
            print::member(key, "label"),
            print::member_ago(key, "created_at"),
            print::member_ago(key, "revoked_at"),
        ]);
    }
    if table.is_empty() { print::line("no keys") } else { table.print() }
}
