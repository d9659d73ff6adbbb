//! The `twin` binary: arguments in; serve, demo, bench, offline export and import to `app`, the rest to `cli`.

// The workloads see the library as its users do, so they belong to the binary.
#[path = "cli/bench.rs"]
mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use service_twin::cli;

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
    /// Measure this machine with the runtime
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let Twin { global, command } = Twin::parse();
    match command {
        Command::OverTheApi(command) => wait_for(cli::run(&global, command)),
        Command::Bench(args) => bench::run(args),
    }
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
