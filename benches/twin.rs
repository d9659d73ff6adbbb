//! `cargo bench --bench twin -- [W1 …] [--cpus n] [--rounds n] [--seconds s] [--json] [--quick] [--list]`: what
//! `twin bench` runs, without the rest of the program.

use std::process::ExitCode;

use workloads::{Options, ROWS, run};

mod workloads;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(&Options::from_args(), ROWS)
}
