//! `twin command`: a service's command inbox.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, twin_path, typed},
    desired::parse,
    error::Error,
    print::{self, Table, bold},
};
use crate::twin::service::view::{CommandState, CommandView, CommandsView};

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What `twin command` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin command shop/orders post drain                           to the first instance that asks
  twin command shop/orders post set-level '{\"level\": \"debug\"}' --target all --concurrency 2
  twin command shop/orders post restart --target pod-7 --wait
  twin command shop/orders ls
  twin command shop/orders get 12
  twin command shop/orders cancel 12")]
pub struct CommandArgs {
    /// The twin
    #[arg(value_name = "ID")]
    id: String,
    #[command(subcommand)]
    action: Action,
    /// Only if the twin's revision is this one
    #[arg(long, global = true, value_name = "REVISION")]
    if_match: Option<u64>,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Put a command into the inbox
    Post(PostArgs),
    /// List commands, newest first
    Ls {
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        limit: u16,
        /// Only those before this one
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// Show one
    Get {
        /// Its number
        #[arg(value_name = "NUMBER")]
        number: u64,
    },
    /// Take one back wherever it has not ended
    Cancel {
        /// Its number
        #[arg(value_name = "NUMBER")]
        number: u64,
    },
}

#[derive(Clone, Debug, Args)]
struct PostArgs {
    /// What to do
    #[arg(value_name = "NAME")]
    name: String,
    /// With which parameters
    #[arg(value_name = "JSON", default_value = "{}")]
    parameters: String,
    /// Who: 'any', 'all', or an instance
    #[arg(long, value_name = "WHO", default_value = "any")]
    target: String,
    /// How long it may wait to be collected, in seconds
    #[arg(long, value_name = "SECONDS")]
    delivery_timeout: Option<u64>,
    /// How long it may take once collected, in seconds
    #[arg(long, value_name = "SECONDS")]
    execution_timeout: Option<u64>,
    /// With --target all: most instances at work at once
    #[arg(long, value_name = "NUMBER")]
    concurrency: Option<u16>,
    /// With --target all: most failures before the rest is cancelled
    #[arg(long, value_name = "NUMBER", requires = "concurrency")]
    errors_max: Option<u16>,
    /// Wait until it has ended; the exit code tells whether it was done
    #[arg(long)]
    wait: bool,
}

/// Runs one of them.
pub(super) async fn run(client: &Client, args: CommandArgs, json: bool) -> Result<(), Error> {
    let path = format!("{}/commands", twin_path(&args.id)?);
    match args.action {
        Action::Post(post) => {
            let body = body(&post)?;
            let posted = client.write(Method::POST, &path, Some(&body), args.if_match).await?;
            let id = posted["id"].as_u64();
            match (id, post.wait) {
                (Some(id), true) => wait(client, &format!("{path}/{id}"), json).await,
                (Some(id), false) if !json => print::line(&format!("command {id}: twin command {} get {id}", args.id)),
                _ => print::document(&posted),
            }
        }
        Action::Ls { limit, before } => {
            let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
            let value = client.get(&format!("{path}?limit={limit}{before}")).await?;
            if json { print::document(&value) } else { list(&typed(value)?) }
        }
        Action::Get { number } => {
            let value = client.get(&format!("{path}/{number}")).await?;
            if json { print::document(&value) } else { show(&typed(value)?) }
        }
        Action::Cancel { number } => {
            let done = client.write(Method::POST, &format!("{path}/{number}/cancel"), None, args.if_match).await?;
            if json { print::document(&done) } else { print::line(&format!("revision {}", done["revision"])) }
        }
    }
}

fn body(post: &PostArgs) -> Result<Value, Error> {
    let target = match post.target.as_str() {
        who @ ("any" | "all") => json!(who),
        instance => json!({ "instance": instance }),
    };
    let mut body = json!({ "name": post.name, "parameters": parse(&post.parameters)?, "target": target });
    if let Some(seconds) = post.delivery_timeout {
        body["delivery_timeout_ms"] = seconds.saturating_mul(1000).into();
    }
    if let Some(seconds) = post.execution_timeout {
        body["execution_timeout_ms"] = seconds.saturating_mul(1000).into();
    }
    if let Some(concurrency) = post.concurrency {
        body["pace"] = json!({ "concurrency_max": concurrency, "errors_max": post.errors_max.unwrap_or(u16::MAX) });
    }
    Ok(body)
}

async fn wait(client: &Client, path: &str, json: bool) -> Result<(), Error> {
    loop {
        let value = client.get(path).await?;
        let view: CommandView = typed(value.clone())?;
        if view.state.is_final() {
            if json {
                print::document(&value)?;
            } else {
                show(&view)?;
            }
            return match view.state {
                CommandState::Succeeded => Ok(()),
                CommandState::Queued
                | CommandState::Delivered
                | CommandState::Acknowledged
                | CommandState::Failed
                | CommandState::Expired
                | CommandState::Cancelled => Err(Error::Refused {
                    status: 200,
                    code: format!("command {}", view.state.as_str()),
                    detail: view.error.map_or_else(|| "it was not done".into(), |error| error.to_string()),
                }),
            };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn list(view: &CommandsView) -> Result<(), Error> {
    let mut table = Table::new(&["NUMBER", "COMMAND", "STATE", "POSTED", "RESULT"]);
    for command in &view.commands {
        let result = command.error.as_ref().map(ToString::to_string);
        let result = result.or_else(|| command.result.as_ref().map(ToString::to_string));
        table.row([
            command.id.to_string(),
            command.name.to_string(),
            print::command_state(command.state),
            print::ago(command.posted_at),
            print::cut(result.as_deref().unwrap_or("-"), 60),
        ]);
    }
    if table.is_empty() {
        return print::line("no commands");
    }
    table.print()?;
    view.next.map_or(Ok(()), |next| print::line(&format!("there are more: --before {next}")))
}

fn show(view: &CommandView) -> Result<(), Error> {
    let state = print::command_state(view.state);
    print::line(&format!("{} {}  {state}  posted {}", view.id, bold(&view.name), print::ago(view.posted_at)))?;
    if let Some(parameters) = &view.parameters {
        print::line(&format!("  parameters {parameters}"))?;
    }
    if let Some(result) = &view.result {
        print::line(&format!("  result     {result}"))?;
    }
    if let Some(error) = &view.error {
        print::line(&format!("  error      {error}"))?;
    }
    let mut table = Table::new(&["INSTANCE", "STATE"]);
    for run in &view.runs {
        table.row([run.instance.as_deref().unwrap_or("-").to_owned(), print::command_state(run.state)]);
    }
    if table.is_empty() { Ok(()) } else { table.print() }
}
