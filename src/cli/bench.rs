//! `twin bench`: how fast this machine runs the runtime, beside its raw limits and the naive baseline.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

#[expect(dead_code, reason = "the bench program reads its arguments itself; here clap does")]
#[path = "../../benches/workloads/mod.rs"]
mod workloads;

/// Measures the runtime beside the machine's limits and a naive actor per id, all in one run.
///
/// Every figure that counts is a ratio: machines and minutes differ, ours ÷ theirs in the same minute does not.
/// Each row runs in a process of its own, pinned to 1 or 2 CPUs. docs/performance.md explains the workloads.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  twin bench --quick          direction in two minutes\n  twin bench W3 W4            two workloads, in full\n  twin bench --json > bench   one object a line, to keep"
)]
pub(crate) struct BenchArgs {
    /// Workloads to run, such as W1 or W3-window-1; all if none is named.
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Pin to this many CPUs, instead of what each row's bar is stated for.
    #[arg(long)]
    cpus: Option<usize>,
    /// Rounds; ours, limit and baseline alternate in each.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds that each takes in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Three short rounds: shows direction, proves nothing.
    #[arg(long)]
    quick: bool,
    /// Only list the workloads.
    #[arg(long)]
    list: bool,
    /// Where the stores of the durable rows are put; the system's folder for temporary files by default.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    // A row's process starts further ones with the same arguments and these; the last ones count.
    #[arg(long, hide = true, overrides_with = "row")]
    row: Option<String>,
    #[arg(long, hide = true, overrides_with = "subject")]
    subject: Option<String>,
}

/// Runs the workloads; fails if one of them gave no figure.
pub(crate) fn run(args: BenchArgs) -> ExitCode {
    let BenchArgs { workloads, cpus, rounds, seconds, json, quick, list, dir, row, subject } = args;
    let options = workloads::Options { workloads, cpus, rounds, seconds, json, quick, list, dir, row, subject };
    workloads::run(&options, workloads::ROWS)
}
