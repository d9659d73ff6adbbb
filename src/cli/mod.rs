//! The command line. Each subcommand is a file that speaks to a node over its API; what needs the node's inside
//! (`serve`, `export`, `import`, `demo`, `bench`) is only described here and run by `main.rs`. `twin run` is a folder: it
//! speaks to a node as the others do, and is handed the way to start one.
//!
//! People get tables, programs get `--json`; errors say what to do; exit codes are listed in `twin --help`.

mod call;
mod client;
#[cfg(feature = "cluster")]
mod cluster;
mod command;
mod config;
mod desired;
mod error;
mod events;
mod get;
mod grant;
mod journal;
mod key;
pub(crate) mod live;
mod ls;
pub(crate) mod print;
mod rm;
pub mod run;
mod secret;
mod sse;
mod state;
pub(crate) mod summary;
mod time;
mod token;
mod transfer;
mod value;
mod watch;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

#[cfg(all(feature = "cluster", feature = "demo"))]
pub(crate) use self::cluster::write_cluster;
pub use self::{
    client::{Client, KEY_FILE, Stream},
    error::{Error, code},
    sse::Event,
    transfer::{Bar, ExportArgs, ImportArgs},
};

/// What the program is called.
const NAME: &str = "twin";
/// Where a node is if nobody says so.
const NODE: &str = "http://127.0.0.1:7070";
const NODE_HELP: &str = "The node to speak to [default: http://127.0.0.1:7070]";
/// Where a node keeps its data if nobody says so.
pub const DATA_DIR: &str = "twin-data";

/// What stands below `twin --help`.
pub const AFTER_HELP: &str = "\
Examples:
  twin demo                                  a node and a small fleet of real services, live in the terminal
  twin serve                                 a node on 127.0.0.1:7070; send OTLP there (gRPC or HTTP)
  twin run --app-id orders -- ./orders       a service as a child process, with a door of its own to its twin
  twin ls health=degraded                    which services are not well
  twin get shop/orders                       one of them, with reasons
  twin desired shop/orders limits merge '{\"rps\": 50}'
  twin command shop/orders post drain --wait
  twin secret put shop/orders db < password.txt

Exit codes:
  0 done      1 failed     2 wrong command line     3 no such thing
  4 refused (precondition, conflict, limit)   5 key missing or not sufficient   6 node not reachable or busy";

/// Where the node is and who asks.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The node to speak to
    #[arg(long, global = true, value_name = "URL", env = "TWIN_NODE", help = NODE_HELP)]
    pub node: Option<String>,
    /// The key to speak with; without one, operator.key of the data folder is used if it can be read
    #[arg(long, global = true, value_name = "KEY", env = "TWIN_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The node's data folder [default: twin-data]
    #[arg(long, global = true, value_name = "FOLDER", env = "TWIN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// The node to speak to.
    pub fn node(&self) -> &str {
        self.node.as_deref().unwrap_or(NODE)
    }

    /// The node's data folder.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR))
    }
}

/// What speaks to a node over its API.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List twins, or find them
    Ls(ls::LsArgs),
    /// Show one twin, now or as it was
    Get(get::GetArgs),
    /// Follow what happens, live
    Watch(watch::WatchArgs),
    /// Print events as JSON, one a line
    Events(events::EventsArgs),
    /// Read or change what a service shall be
    Desired(desired::DesiredArgs),
    /// Send commands to a service's instances
    Command(command::CommandArgs),
    /// Read or change what a service is configured with, while it runs
    Config(config::ConfigArgs),
    /// Set, rotate and list a service's secrets
    Secret(secret::SecretArgs),
    /// Read and write the keys that a service keeps
    State(state::StateArgs),
    /// Ask a service's twin for anything its capabilities can be asked
    Call(call::CallArgs),
    /// Say what a service may do with its twin
    Grant(grant::GrantArgs),
    /// Show who changed what, and when
    Journal(journal::JournalArgs),
    /// Make, list, replace and revoke keys
    Key(key::KeyArgs),
    /// Show the nodes that share the twins, or write what a new cluster needs
    #[cfg(feature = "cluster")]
    Cluster(cluster::ClusterArgs),
    /// Show what a key says, or make one that reaches less far; without a node
    Token(token::TokenArgs),
    /// Remove a twin with everything that is its
    Rm(rm::RmArgs),
}

/// Runs one of them.
pub async fn run(global: &Global, command: Command) -> ExitCode {
    finish(dispatch(global, command).await)
}

async fn dispatch(global: &Global, command: Command) -> Result<(), Error> {
    let client = || Client::new(global.node(), global.key.as_deref(), global.data_dir());
    let json = global.json;
    match command {
        Command::Ls(args) => ls::run(&client()?, args, json).await,
        Command::Get(args) => get::run(&client()?, args, json).await,
        Command::Watch(args) => watch::run(&client()?, args, json).await,
        Command::Events(args) => events::events(&client()?, args).await,
        Command::Desired(args) => desired::run(&client()?, args, json).await,
        Command::Command(args) => command::run(&client()?, args, json).await,
        Command::Config(args) => config::run(&client()?, args, json).await,
        Command::Secret(args) => secret::run(&client()?, args, json).await,
        Command::State(args) => state::run(&client()?, args, json).await,
        Command::Call(args) => call::run(&client()?, args, json).await,
        Command::Grant(args) => grant::run(&client()?, args, json).await,
        Command::Journal(args) => journal::run(&client()?, args, json).await,
        Command::Key(args) => key::run(&client()?, args, json).await,
        #[cfg(feature = "cluster")]
        Command::Cluster(args) => cluster::run(global, args, json).await,
        Command::Token(args) => token::run(global, args),
        Command::Rm(args) => rm::run(&client()?, args, json).await,
    }
}

/// Tells the terminal how it went, and the shell.
pub fn finish(ran: Result<(), Error>) -> ExitCode {
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string(), error.hint().as_deref());
            ExitCode::from(error.exit_code())
        }
    }
}

/// How to call this program from here: by its name if the shell finds it under that, otherwise by its path.
pub fn program() -> String {
    let Ok(this) = std::env::current_exe().and_then(std::fs::canonicalize) else { return NAME.into() };
    let found = std::env::var_os("PATH").and_then(|path| {
        let places = std::env::split_paths(&path).map(|folder| folder.join(NAME));
        places.map(std::fs::canonicalize).find_map(Result::ok)
    });
    let here = std::env::current_dir().and_then(std::fs::canonicalize).ok();
    called(&this, found.as_deref(), here.as_deref())
}

fn called(this: &Path, found: Option<&Path>, here: Option<&Path>) -> String {
    if found == Some(this) {
        return NAME.into();
    }
    let path = match here.and_then(|here| this.strip_prefix(here).ok()) {
        Some(below) => Path::new(".").join(below),
        None => this.to_owned(),
    };
    let path = path.to_string_lossy();
    if path.contains(' ') { format!("'{path}'") } else { path.into_owned() }
}

/// Prints a text on standard output.
pub fn say(text: &str) -> Result<(), Error> {
    print::line(text)
}

/// Says on standard error what went wrong, and what to do about it.
pub fn complain(what: &str, hint: Option<&str>) {
    let term = console::Term::stderr();
    let style = || console::Style::new().for_stderr();
    let hint = hint.map(|hint| format!("\n{} {hint}", style().dim().apply_to("hint:"))).unwrap_or_default();
    // Nothing can be said if standard error is gone, too.
    drop(term.write_line(&format!("{} {what}{hint}", style().red().bold().apply_to("twin:"))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_on_the_path_is_called_by_where_it_lies() {
        let (this, other) = (Path::new("/home/me/twins/target/release/twin"), Path::new("/usr/bin/twin"));
        let here = Some(Path::new("/home/me/twins"));
        assert_eq!(called(this, Some(this), here), "twin");
        assert_eq!(called(this, None, here), "./target/release/twin");
        assert_eq!(called(this, Some(other), here), "./target/release/twin", "another one is found");
        assert_eq!(called(this, None, Some(Path::new("/tmp"))), "/home/me/twins/target/release/twin");
        assert_eq!(called(Path::new("/my twins/twin"), None, here), "'/my twins/twin'");
    }
}
