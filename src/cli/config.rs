//! `twin config`: what a service is configured with, while it runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, twin_path},
    error::Error,
    print::{self, Table, bold},
    value::from_file,
};

/// What `twin config` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What one 'set' names changes in one commit, all or nothing, and reaches who follows the configuration at once; an instance
then says whether it has applied it. 'rollback' takes the newest version back.

Examples:
  twin config get shop/orders
  twin config get shop/orders limits.rps              the value alone
  twin config set shop/orders limits.rps=50 colour=red
  twin config set shop/orders banner=@banner.txt --rm colour
  twin config set shop/orders limits.rps=60 --if-match 3
  twin config rollback shop/orders")]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Show every key and who has applied it, or one value
    Get {
        /// The service: namespace/name
        #[arg(value_name = "SERVICE")]
        service: String,
        /// Only the value of this key
        #[arg(id = "configuration_key", value_name = "KEY")]
        key: Option<String>,
    },
    /// Change keys together
    Set(Set),
    /// Take the newest version back
    Rollback {
        /// The service: namespace/name
        #[arg(value_name = "SERVICE")]
        service: String,
        /// Only if this is the newest version
        #[arg(long = "if-match", value_name = "VERSION")]
        version: Option<u64>,
    },
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("edits").required(true).multiple(true).args(["keys", "removed"]))]
struct Set {
    /// The service: namespace/name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// A key and its value; KEY=@FILE takes the value from a file
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
    /// A key that shall be no more
    #[arg(long = "rm", value_name = "KEY")]
    removed: Vec<String>,
    /// Only if this is the newest version
    #[arg(long, value_name = "VERSION")]
    if_match: Option<u64>,
}

/// Runs one of them.
pub(super) async fn run(client: &Client, args: ConfigArgs, json: bool) -> Result<(), Error> {
    match args.action {
        Action::Get { service, key } => {
            let configuration = client.get(&path(&service)?).await?;
            match key {
                Some(key) => one(&configuration, &key, json),
                None if json => print::document(&configuration),
                None => show(&service, &configuration),
            }
        }
        Action::Set(set) => {
            let body = json!({ "keys": set.edits()? });
            let made = client.write(Method::PATCH, &path(&set.service)?, Some(&body), set.if_match).await?;
            version(&made, json)
        }
        Action::Rollback { service, version: wanted } => {
            let path = path(&service)?;
            let newest = match wanted {
                Some(version) => version,
                None => client.get(&path).await?["version"].as_u64().unwrap_or_default(),
            };
            let body = json!({ "version": newest });
            let made = client.write(Method::POST, &format!("{path}/rollback"), Some(&body), None).await?;
            version(&made, json)
        }
    }
}

impl Set {
    fn edits(&self) -> Result<Map<String, Value>, Error> {
        let mut edits = Map::new();
        for key in &self.keys {
            let (key, value) = key
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| Error::Usage(format!("'{key}' is not KEY=VALUE; to take a key away, say --rm {key}")))?;
            let value = match value.strip_prefix('@') {
                Some(file) => String::from_utf8(from_file(&PathBuf::from(file))?)
                    .map_err(|_| Error::Usage(format!("'{file}' is no text")))?,
                None => value.to_owned(),
            };
            edits.insert(key.to_owned(), json!({ "value": value }));
        }
        edits.extend(self.removed.iter().map(|key| (key.clone(), Value::Null)));
        if edits.len() < self.keys.len() + self.removed.len() {
            return Err(Error::Usage("a key stands there twice".to_owned()));
        }
        Ok(edits)
    }
}

fn path(service: &str) -> Result<String, Error> {
    Ok(format!("{}/configuration", twin_path(service)?))
}

fn version(made: &Value, json: bool) -> Result<(), Error> {
    if json { print::document(made) } else { print::line(&format!("version {}", print::member(made, "version"))) }
}

fn one(configuration: &Value, key: &str, json: bool) -> Result<(), Error> {
    let found = configuration["keys"].get(key).ok_or_else(|| Error::Refused {
        status: 404,
        code: "not-found".into(),
        detail: format!("configuration has no key '{key}'"),
    })?;
    if json { print::document(found) } else { print::line(&print::member(found, "value")) }
}

fn show(service: &str, configuration: &Value) -> Result<(), Error> {
    let in_sync = configuration["in_sync"] == true;
    let (newest, changed) = (print::member(configuration, "version"), print::member_ago(configuration, "changed_at"));
    print::line(&format!("{}  version {newest}  changed {changed}  in sync: {}", bold(service), print::yes(in_sync)))?;
    let mut keys = Table::new(&["KEY", "VERSION", "VALUE"]);
    for (key, value) in configuration["keys"].as_object().into_iter().flatten() {
        let text = print::cut(&print::member(value, "value"), 60);
        keys.row([print::plain(key).into_owned(), print::member(value, "version"), text]);
    }
    if keys.is_empty() {
        print::line("no keys")?;
    } else {
        keys.print()?;
    }
    let mut instances = Table::new(&["INSTANCE", "HAS APPLIED", "SAID", "ERROR"]);
    for said in configuration["instances"].as_array().into_iter().flatten() {
        let error = print::member(said, "error");
        let member = |name| print::member(said, name);
        instances.row([member("instance"), member("version"), print::member_ago(said, "at"), error]);
    }
    if instances.is_empty() { Ok(()) } else { instances.print() }
}
