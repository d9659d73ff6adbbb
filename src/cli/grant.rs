//! `twin grant`: what a service may do with its twin.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, twin_path},
    error::Error,
    print::{self, Table},
    time,
};
use crate::model::{Timestamp, scope::Pattern};

/// What `twin grant` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A scope is capability:name, such as state:statestore/order-1, secrets:db, configuration:limits, topics:pubsub/orders; one
that ends in * stands for every name that begins so. Of the grants that are about a request the deepest decides, of
equally deep ones the denial; if there is none, the answer is no. A new twin has the grants of the profile 'standard':
what is the service's own. Capabilities and their operations: docs/capabilities.

Examples:
  twin grant ls shop/orders
  twin grant allow shop/orders 'secrets:*' --operation set --expires 1h
  twin grant deny shop/orders 'state:statestore/private-*'
  twin grant rm shop/orders 'state:statestore/private-*'
  twin grant check shop/orders get state:statestore/private-1 || echo no
  twin grant explain shop/orders publish topics:pubsub/payments")]
pub struct GrantArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List what a service may do
    Ls {
        /// The service: namespace/name
        #[arg(value_name = "SERVICE")]
        service: String,
    },
    /// Give a service a right
    Allow(Given),
    /// Take a right from a service, whatever wider grants say
    Deny(Given),
    /// Take grants away that a service was given
    Rm {
        #[command(flatten)]
        scope: Scope,
        /// Only the one for exactly these operations
        #[arg(long = "operation", value_name = "NAME", value_delimiter = ',')]
        operations: Vec<String>,
    },
    /// Say whether a service has a right; the exit code tells, too
    Check(Right),
    /// Say which rule decides about a right, and how to change it
    Explain(Right),
}

#[derive(Clone, Debug, Args)]
struct Scope {
    /// The service: namespace/name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// On what: capability:name, the name ending in * for any rest
    #[arg(value_name = "SCOPE")]
    scope: Pattern,
}

#[derive(Clone, Debug, Args)]
struct Given {
    #[command(flatten)]
    scope: Scope,
    /// Only these operations, such as get,list [default: every one]
    #[arg(long = "operation", value_name = "NAME", value_delimiter = ',')]
    operations: Vec<String>,
    /// From when on it counts no more: a time, or how long until then, such as 1h
    #[arg(long = "expires", value_name = "TIME", value_parser = time::deadline)]
    expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Args)]
struct Right {
    /// The service: namespace/name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The operation, such as get
    #[arg(value_name = "OPERATION")]
    operation: String,
    /// On what: capability:name
    #[arg(value_name = "SCOPE")]
    scope: String,
}

/// Runs one of them.
pub(super) async fn run(client: &Client, args: GrantArgs, json: bool) -> Result<(), Error> {
    match args.action {
        Action::Ls { service } => {
            let access = client.get(&path(&service)?).await?;
            if json { print::document(&access) } else { list(&access) }
        }
        Action::Allow(given) => give(client, "allow", &given, json).await,
        Action::Deny(given) => give(client, "deny", &given, json).await,
        Action::Rm { scope, operations } => take(client, &scope, &operations, json).await,
        Action::Check(right) => {
            let checked = check(client, &right).await?;
            if json {
                print::document(&checked)?;
            } else {
                print::line(if checked["allowed"] == true { "yes" } else { "no" })?;
            }
            if checked["allowed"] == true { Ok(()) } else { Err(no(&checked)) }
        }
        Action::Explain(right) => {
            let checked = check(client, &right).await?;
            if json { print::document(&checked) } else { explain(&right, &checked) }
        }
    }
}

fn path(service: &str) -> Result<String, Error> {
    Ok(format!("{}/access", twin_path(service)?))
}

async fn give(client: &Client, effect: &str, given: &Given, json: bool) -> Result<(), Error> {
    let mut grant = json!({ "effect": effect, "scope": given.scope.scope.as_str() });
    if !given.operations.is_empty() {
        grant["operations"] = json!(given.operations);
    }
    if let Some(until) = given.expires_at {
        grant["expires_at"] = until.unix_ms().into();
    }
    let body = json!({ "add": [grant] });
    let written = client.write(Method::PATCH, &path(&given.scope.service)?, Some(&body), None).await?;
    if json { print::document(&written) } else { print::line(&format!("revision {}", written["revision"])) }
}

async fn take(client: &Client, scope: &Scope, operations: &[String], json: bool) -> Result<(), Error> {
    let path = path(&scope.service)?;
    let access = client.get(&path).await?;
    let is_it = |grant: &&Value| {
        grant["scope"] == scope.scope.as_str() && (operations.is_empty() || grant["operations"] == json!(operations))
    };
    let grants: Vec<&Value> = access["grants"].as_array().into_iter().flatten().filter(is_it).collect();
    if grants.is_empty() {
        return Err(Error::Refused {
            status: 404,
            code: "not-found".into(),
            detail: format!("grant on '{}' of its own not found at '{}'", scope.scope, scope.service),
        });
    }
    let count = grants.len();
    let written = client.write(Method::PATCH, &path, Some(&json!({ "remove": grants })), None).await?;
    if json {
        return print::document(&written);
    }
    print::line(&format!("revision {}: {count} taken away", written["revision"]))
}

async fn check(client: &Client, right: &Right) -> Result<Value, Error> {
    let body = json!({ "rights": [{ "operation": right.operation, "scope": right.scope }] });
    let mut checked =
        client.write(Method::POST, &format!("{}/check", path(&right.service)?), Some(&body), None).await?;
    match checked.get_mut(0) {
        Some(checked) => Ok(checked.take()),
        None => Err(Error::Answer("it has ruled on nothing".to_owned())),
    }
}

fn no(checked: &Value) -> Error {
    Error::Refused { status: 200, code: "not allowed".into(), detail: print::member(checked, "rule") }
}

fn explain(right: &Right, checked: &Value) -> Result<(), Error> {
    let is_allowed = checked["allowed"] == true;
    let (may, other) = if is_allowed { ("may", "deny") } else { ("may not", "allow") };
    let Right { service, operation, scope } = right;
    print::line(&format!("{service} {may} {operation} {scope}"))?;
    print::line(&format!("  rule    {}", print::member(checked, "rule")))?;
    print::line(&format!("  change  twin grant {other} {service} '{scope}' --operation {operation}"))
}

fn list(access: &Value) -> Result<(), Error> {
    let mut table = Table::new(&["EFFECT", "OPERATIONS", "SCOPE", "ENDS", "FROM"]);
    let profile = format!("profile {}", print::member(access, "profile"));
    for (grants, from) in [("from_profile", profile.as_str()), ("grants", "the twin")] {
        for grant in access[grants].as_array().into_iter().flatten() {
            let operations: Vec<&str> =
                grant["operations"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let operations = if operations.is_empty() { "*".to_owned() } else { operations.join(",") };
            table.row([
                print::member(grant, "effect"),
                print::plain(&operations).into_owned(),
                print::member(grant, "scope"),
                print::member_when(grant, "expires_at"),
                from.to_owned(),
            ]);
        }
    }
    if table.is_empty() { print::line(&format!("nothing ({profile})")) } else { table.print() }
}
