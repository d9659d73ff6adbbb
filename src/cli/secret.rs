//! `twin secret`: values that a service reads and nobody sees, and their rotation.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, segment, twin_path},
    error::Error,
    print::{self, Table, bold},
    rm, time,
    value::Source,
};

/// What `twin secret` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A value comes from standard input or a file, never from the command line, where every process of the machine could read
it. Reading one is journaled: 'twin journal SERVICE' tells who did.

'rotate' sets a new version and leaves the one before valid until every live instance says that it has moved on, or for
--overlap at the longest; 'status' shows who has. 'put' ends the version before at once.

Examples:
  printf %s \"$PASSWORD\" | twin secret put shop/orders db
  twin secret put shop/orders tls.key --from-file key.pem --exact
  twin secret rotate shop/orders db --overlap 30m < new-password
  twin secret status shop/orders db
  twin secret get shop/orders db --reveal")]
pub struct SecretArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List the secrets of a service, without their values
    Ls {
        /// The service: namespace/name
        #[arg(value_name = "SERVICE")]
        service: String,
    },
    /// Set a secret; the version before is over at once
    Put {
        #[command(flatten)]
        secret: Named,
        #[command(flatten)]
        source: Source,
    },
    /// Show where a secret stands; its value only with --reveal
    Get {
        #[command(flatten)]
        secret: Named,
        /// Print the value; that is journaled
        #[arg(long)]
        reveal: bool,
        /// Which version: the newest, or the one before while it is valid
        #[arg(long, value_name = "NUMBER", requires = "reveal")]
        version: Option<u64>,
    },
    /// Set a new version while the one before goes on to count
    Rotate {
        #[command(flatten)]
        secret: Named,
        #[command(flatten)]
        source: Source,
        /// For how long at most, such as 30m or 24h
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time::duration)]
        overlap: Duration,
    },
    /// Show which instance uses which version
    Status {
        #[command(flatten)]
        secret: Named,
    },
    /// Delete a secret with every version
    Rm {
        #[command(flatten)]
        secret: Named,
        /// Do not ask; needed where there is no terminal to ask in
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Clone, Debug, Args)]
struct Named {
    /// The service: namespace/name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The secret
    #[arg(value_name = "SECRET")]
    secret: String,
}

impl Named {
    fn path(&self) -> Result<String, Error> {
        Ok(format!("{}/secrets/{}", twin_path(&self.service)?, segment(&self.secret)))
    }
}

/// Runs one of them.
pub(super) async fn run(client: &Client, args: SecretArgs, json: bool) -> Result<(), Error> {
    match args.action {
        Action::Ls { service } => {
            let secrets = client.get(&format!("{}/secrets", twin_path(&service)?)).await?;
            if json { print::document(&secrets) } else { list(&secrets) }
        }
        Action::Put { secret, source } => put(client, &secret, &source, "", json).await,
        Action::Rotate { secret, source, overlap } => {
            let query = format!("?rotate=true&overlap_s={}", overlap.as_secs());
            put(client, &secret, &source, &query, json).await
        }
        Action::Get { secret, reveal: false, .. } | Action::Status { secret } => {
            let view = client.get(&secret.path()?).await?;
            if json { print::document(&view) } else { show(&secret, &view) }
        }
        Action::Get { secret, reveal: true, version } => reveal(client, &secret, version, json).await,
        Action::Rm { secret, yes } => {
            rm::confirm(&format!("the secret '{}' of '{}' with every version", secret.secret, secret.service), yes)?;
            client.write(Method::DELETE, &secret.path()?, None, None).await?;
            if json { print::document(&json!({ "deleted": secret.secret })) } else { print::line("it is deleted") }
        }
    }
}

async fn put(client: &Client, secret: &Named, source: &Source, query: &str, json: bool) -> Result<(), Error> {
    let path = format!("{}{query}", secret.path()?);
    let value = source.read("the value")?;
    let made: Value = client.put_bytes(&path, value, None).await?.document()?;
    if json {
        return print::document(&made);
    }
    print::line(&format!("version {}", print::member(&made, "version")))?;
    if !query.is_empty() {
        print::aside(&format!("who has moved on: twin secret status {} {}", secret.service, secret.secret));
    }
    Ok(())
}

async fn reveal(client: &Client, secret: &Named, version: Option<u64>, json: bool) -> Result<(), Error> {
    let version = version.map(|version| format!("?version={version}")).unwrap_or_default();
    let read = client.get_bytes(&format!("{}/value{version}", secret.path()?)).await?;
    if json {
        let value = String::from_utf8(read.bytes)
            .map_err(|_| Error::Usage("this value is no text; leave --json away to have its bytes".to_owned()))?;
        return print::document(&json!({ "secret": secret.secret, "version": read.version, "value": value }));
    }
    raw(&read.bytes)
}

/// Bytes as they are; somebody at a terminal gets a line end after them.
pub(super) fn raw(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let end: &[u8] = if out.is_terminal() { b"\n" } else { b"" };
    out.write_all(bytes)
        .and_then(|()| out.write_all(end))
        .and_then(|()| out.flush())
        .map_err(Error::io("standard output"))
}

fn list(secrets: &Value) -> Result<(), Error> {
    let mut table = Table::new(&["SECRET", "VERSION", "SET", "BEFORE", "COUNTS UNTIL"]);
    for secret in secrets.as_array().into_iter().flatten() {
        table.row([
            print::member(secret, "secret"),
            print::member(secret, "version"),
            print::member_ago(secret, "changed_at"),
            print::member(secret, "previous"),
            print::member_when(secret, "previous_until"),
        ]);
    }
    if table.is_empty() { print::line("no secrets") } else { table.print() }
}

fn show(secret: &Named, view: &Value) -> Result<(), Error> {
    let (name, version) = (print::member(view, "secret"), print::member(view, "version"));
    print::line(&format!("{}  version {version}  set {}", bold(&name), print::member_ago(view, "changed_at")))?;
    if view["previous"].is_u64() {
        let (previous, until) = (print::member(view, "previous"), print::member_when(view, "previous_until"));
        print::line(&format!("  version {previous} counts, too: until every live instance has moved on, or {until}"))?;
    }
    let mut table = Table::new(&["INSTANCE", "USES VERSION"]);
    for instance in view["instances"].as_array().into_iter().flatten() {
        table.row([print::member(instance, "instance"), print::member(instance, "version")]);
    }
    if !table.is_empty() {
        table.print()?;
    }
    print::aside(&format!("its value: twin secret get {} {} --reveal", secret.service, secret.secret));
    Ok(())
}
