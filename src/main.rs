//! The `twin` binary: arguments in; serve, demo, bench, offline export and import to `app`, the rest to `cli`.

// The workloads see the library as its users do, so they belong to the binary.
#[path = "cli/bench.rs"]
mod bench;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
#[cfg(feature = "demo")]
use service_twin::demo;
use service_twin::{app, cli, config, store::transfer::Progress};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every microservice gets one durable twin: a virtual actor that mirrors it, steers it and serves it
#[derive(Parser)]
#[command(name = "twin", version, max_term_width = 110, after_help = cli::AFTER_HELP)]
struct Twin {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    OverTheApi(cli::Command),
    /// Run a node
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    /// Run a service beside its twin, as `dapr run` does
    Run(Box<cli::run::RunArgs>),
    /// Write everything a stopped node keeps into one file
    Export(cli::ExportArgs),
    /// Read such a file into a fresh data folder
    Import(cli::ImportArgs),
    /// Run a node with a small fleet of real services, and watch it
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// One service of the demo's fleet
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoService(demo::ServiceArgs),
    /// Measure this machine with the runtime
    Bench(bench::BenchArgs),
}

#[derive(clap::Args)]
struct Serve {
    #[command(flatten)]
    flags: config::Flags,
    /// Print the settings that are in force, as a file, and end
    #[arg(long)]
    print_config: bool,
}

const SERVE_HELP: &str = "\
Settings come from defaults, twin.toml, the environment (TWIN_LISTEN, TWIN_SERVER__DEADLINE_S, …) and these flags,
each stronger than the one before. The first start makes an operator key: <data folder>/operator.key.

Examples:
  twin serve                                     on 127.0.0.1:7070, data in ./twin-data
  twin serve --listen 127.0.0.1:0 --data-dir /var/lib/twin
  twin serve --durability flushed                what was acknowledged survives a crash, but no power loss
  twin serve --set service.series_max=64         any setting, by its full name
  twin serve --print-config > twin.toml          every setting, with what it is now
  twin serve --dev --memory                      to try things out: no key needed from this machine, nothing kept

Telemetry then comes in with three variables of any OpenTelemetry SDK:
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:7070 OTEL_SERVICE_NAME=orders
  OTEL_EXPORTER_OTLP_HEADERS=\"authorization=Bearer%20$(twin key new service default/orders)\"";

fn main() -> ExitCode {
    let Twin { global, command } = Twin::parse();
    match command {
        Command::OverTheApi(command) => wait_for(cli::run(&global, command)),
        Command::Serve(Serve { flags, print_config }) => {
            let flags = config::Flags { data_dir: global.data_dir, ..flags };
            if print_config { show(&flags) } else { serve(&flags) }
        }
        Command::Run(args) => wait_for(cli::run::run(&global, *args, node_beside)),
        Command::Export(args) => transfer(&global, args.config, &args.file, "export", app::transfer::export),
        Command::Import(args) => transfer(&global, args.config, &args.file, "import", app::transfer::import),
        #[cfg(feature = "demo")]
        Command::Demo(args) => wait_for(demo::run(args, &global)),
        #[cfg(feature = "demo")]
        Command::DemoService(args) => wait_for(demo::serve(args)),
        Command::Bench(args) => bench::run(args),
    }
}

fn show(flags: &config::Flags) -> ExitCode {
    let text = config::Config::load(flags).map_err(|error| causes(&error));
    match text.and_then(|config| config.to_toml().map_err(|error| causes(&error))) {
        Ok(text) => cli::finish(cli::say(text.trim_end())),
        Err(causes) => {
            cli::complain(&causes, None);
            ExitCode::FAILURE
        }
    }
}

fn serve(flags: &config::Flags) -> ExitCode {
    wait_for(async {
        let config = config::Config::load(flags).map_err(app::Error::from);
        let served = match config {
            Ok(config) => app::serve(config).await,
            Err(error) => Err(error),
        };
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                cli::complain(&causes(&error), None);
                ExitCode::FAILURE
            }
        }
    })
}

/// Starts a node in this process, as `twin serve` would, and says how to end it.
async fn node_beside(place: cli::run::Place) -> Result<cli::run::OwnNode, String> {
    let cli::run::Place { listen, data_dir, log } = place;
    let flags = config::Flags { listen: Some(listen), data_dir, log: Some(log.into()), ..config::Flags::default() };
    let config = config::Config::load(&flags).map_err(|error| causes(&error))?;
    app::log(&config.log).map_err(|error| causes(&error))?;
    let data_dir = config.data_dir.clone();
    let node = app::Node::start(config).await.map_err(|error| causes(&error))?;
    let url = node.url();
    let end = Box::pin(async move {
        let unsettled = node.shutdown().await.unsettled;
        if unsettled > 0 {
            cli::complain(&format!("{unsettled} twins had not settled when the node ended"), None);
        }
    });
    Ok(cli::run::OwnNode { url, data_dir, end })
}

type Transfer = fn(&config::Config, &Path, &mut dyn FnMut(Progress)) -> Result<Progress, app::transfer::Error>;

/// Runs an export or import with its progress in the terminal.
fn transfer(global: &cli::Global, config: Option<PathBuf>, file: &Path, what: &str, run: Transfer) -> ExitCode {
    let flags = config::Flags { config, data_dir: global.data_dir.clone(), ..config::Flags::default() };
    let config = match config::Config::load(&flags) {
        Ok(config) => config,
        Err(error) => {
            cli::complain(&causes(&error), None);
            return ExitCode::FAILURE;
        }
    };
    let bar = cli::Bar::new(what, global.json);
    match run(&config, file, &mut |so_far| bar.at(so_far.items, so_far.bytes)) {
        Ok(total) => cli::finish(bar.done(total.items, total.bytes)),
        Err(error) => {
            cli::complain(&causes(&error), None);
            ExitCode::FAILURE
        }
    }
}

/// An error with what led to it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Runs what waits for the network on a runtime of its own.
fn wait_for(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            cli::complain(&format!("the process cannot start threads: {error}"), None);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Twin::command().debug_assert();
    }

    #[test]
    fn every_help_has_an_example() {
        for command in Twin::command().get_subcommands().chain([&Twin::command()]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.is_hide_set() || help.contains("Example"), "'{}'", command.get_name());
        }
    }
}
