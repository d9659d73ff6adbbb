//! `cargo bench --bench twin -- [W1 …] [--cpus n] [--rounds n] [--seconds s] [--json] [--quick] [--list]`: what
//! `twin bench` runs, without the rest of the program.

use std::process::ExitCode;

use workloads::{Options, run};

mod workloads;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut options = Options {
        workloads: Vec::new(),
        cpus: None,
        rounds: 7,
        seconds: 1.0,
        json: false,
        quick: false,
        list: false,
        dir: None,
        row: None,
        subject: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--cpus" => options.cpus = Some(value().parse().expect("--cpus takes a number")),
            "--rounds" => options.rounds = value().parse().expect("--rounds takes a number"),
            "--seconds" => options.seconds = value().parse().expect("--seconds takes a number"),
            "--dir" => options.dir = Some(value().into()),
            "--row" => options.row = Some(value()),
            "--subject" => options.subject = Some(value()),
            "--json" => options.json = true,
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            // What cargo itself hands to every bench.
            "--bench" => {}
            name => options.workloads.push(name.to_owned()),
        }
    }
    run(&options)
}
