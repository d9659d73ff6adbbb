//! `twin state`: the keys and values that a service keeps in its twin.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, Expected, segment, twin_path},
    error::Error,
    print::{self, Table},
    secret::raw,
    value::Source,
};

/// Keys asked for at once.
const PAGE: u16 = 100;

/// What `twin state` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The service reads and writes the same keys through its SDK; 'statestore' is the store that each service has. An ETag tells
how often a key was written: with --if-match a value is written only over the one you have seen, with --if-absent over none.

Examples:
  twin state ls shop/orders                          its stores
  twin state ls shop/orders statestore order-        keys that begin so
  twin state get shop/orders statestore order-1
  echo '{\"total\": 3}' | twin state put shop/orders statestore order-1 --if-match 2
  twin state put shop/orders statestore logo --from-file logo.png --exact --ttl 1h
  twin state rm shop/orders statestore order-1")]
pub struct StateArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print a value as it is
    Get(Keyed),
    /// List the stores of a service, or keys of one
    Ls {
        /// The service: namespace/name
        #[arg(value_name = "SERVICE")]
        service: String,
        /// The store
        #[arg(value_name = "STORE")]
        store: Option<String>,
        /// Only keys that begin so
        #[arg(value_name = "PREFIX", default_value = "")]
        prefix: String,
        /// Only keys greater than this
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
    },
    /// Write a value, from standard input or a file
    Put {
        #[command(flatten)]
        key: Keyed,
        #[command(flatten)]
        source: Source,
        /// How long it is there, such as 30m or 24h [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = super::time::duration)]
        ttl: Option<std::time::Duration>,
        /// Only if this is its ETag
        #[arg(long, value_name = "ETAG", conflicts_with = "if_absent")]
        if_match: Option<u64>,
        /// Only if the key is not there
        #[arg(long)]
        if_absent: bool,
    },
    /// Delete a key; one that is not there stays so
    Rm {
        #[command(flatten)]
        key: Keyed,
        /// Only if this is its ETag
        #[arg(long, value_name = "ETAG")]
        if_match: Option<u64>,
    },
}

#[derive(Clone, Debug, Args)]
struct Keyed {
    /// The service: namespace/name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The store
    #[arg(value_name = "STORE")]
    store: String,
    /// The key
    #[arg(id = "state_key", value_name = "KEY")]
    key: String,
}

impl Keyed {
    fn path(&self) -> Result<String, Error> {
        Ok(format!("{}/{}", store_path(&self.service, &self.store)?, segment(&self.key)))
    }
}

fn store_path(service: &str, store: &str) -> Result<String, Error> {
    Ok(format!("{}/state/{}", twin_path(service)?, segment(store)))
}

/// Runs one of them.
pub(super) async fn run(client: &Client, args: StateArgs, json: bool) -> Result<(), Error> {
    match args.action {
        Action::Get(key) => {
            let read = client.get_bytes(&key.path()?).await?;
            if !json {
                return raw(&read.bytes);
            }
            // A value is whatever was written: JSON if it is some, otherwise a text.
            let text = || String::from_utf8_lossy(&read.bytes).into_owned().into();
            let value: Value = serde_json::from_slice(&read.bytes).unwrap_or_else(|_| text());
            print::document(&json!({ "key": key.key, "etag": read.etag, "value": value }))
        }
        Action::Ls { service, store: None, .. } => {
            let stores = client.get(&format!("{}/state", twin_path(&service)?)).await?;
            if json { print::document(&stores) } else { show_stores(&stores) }
        }
        Action::Ls { service, store: Some(store), prefix, after, limit } => {
            list(client, &store_path(&service, &store)?, &prefix, after, limit, json).await
        }
        Action::Put { key, source, ttl, if_match, if_absent } => {
            let ttl = ttl.map(|ttl| format!("?ttl_s={}", ttl.as_secs())).unwrap_or_default();
            let path = format!("{}{ttl}", key.path()?);
            let value = source.read("the value")?;
            let expected = if if_absent { Some(Expected::Absent) } else { if_match.map(Expected::Etag) };
            let written = client.put_bytes(&path, value, expected).await?;
            if json {
                return print::document(&json!({ "key": key.key, "etag": written.etag }));
            }
            print::line(&format!("etag {}", written.etag.map_or_else(|| "-".to_owned(), |etag| etag.to_string())))
        }
        Action::Rm { key, if_match } => {
            client.write(Method::DELETE, &key.path()?, None, if_match).await?;
            if json { print::document(&json!({ "deleted": key.key })) } else { print::line("it is deleted") }
        }
    }
}

async fn list(
    client: &Client,
    path: &str,
    prefix: &str,
    mut after: Option<String>,
    limit: usize,
    json: bool,
) -> Result<(), Error> {
    let mut keys = Vec::<Value>::new();
    let mut next = None;
    while keys.len() < limit {
        let rest = u16::try_from(limit - keys.len()).unwrap_or(PAGE).min(PAGE);
        let from = after.as_ref().map(|after| format!("&after={}", segment(after))).unwrap_or_default();
        let mut page = client.get(&format!("{path}?limit={rest}&prefix={}{from}", segment(prefix))).await?;
        keys.extend(page["keys"].as_array_mut().map(std::mem::take).unwrap_or_default());
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
        after.clone_from(&next);
    }
    if json {
        return print::document(&json!({ "keys": keys, "next": next }));
    }
    let mut table = Table::new(&["KEY", "ETAG", "BYTES", "ENDS"]);
    for key in &keys {
        let member = |name| print::member(key, name);
        table.row([member("key"), member("etag"), member("bytes"), print::member_when(key, "expires_at")]);
    }
    if table.is_empty() {
        return print::line("no keys");
    }
    table.print()?;
    next.map_or(Ok(()), |next| print::line(&format!("there are more: --after '{}'", print::plain(&next))))
}

fn show_stores(stores: &Value) -> Result<(), Error> {
    let mut table = Table::new(&["STORE", "KEYS", "BYTES"]);
    for store in stores.as_array().into_iter().flatten() {
        table.row(["store", "keys", "bytes"].map(|name| print::member(store, name)));
    }
    if table.is_empty() { print::line("no stores") } else { table.print() }
}
