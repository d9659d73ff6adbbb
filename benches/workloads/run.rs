//! Chooses rows, runs each in a process of its own, prints lines.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Entry, Peers, Setting, Work,
    harness::{
        machine,
        report::{self, HEAD, median, round, table_line},
        row::Rounds,
    },
};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Names of workloads; none means all.
    pub(crate) workloads: Vec<String>,
    /// CPUs to pin to, instead of each row's own choice.
    pub(crate) cpus: Option<usize>,
    /// Rounds of a row.
    pub(crate) rounds: usize,
    /// Seconds of a lap.
    pub(crate) seconds: f64,
    /// One JSON object a line instead of a table.
    pub(crate) json: bool,
    /// Three short rounds: shows direction, proves nothing.
    pub(crate) quick: bool,
    /// Only names the workloads.
    pub(crate) list: bool,
    /// Where stores are put.
    pub(crate) dir: Option<PathBuf>,
    /// For the children: the one row to run, `name@cpus`.
    pub(crate) row: Option<String>,
    /// For the children's children: whose memory to measure.
    pub(crate) subject: Option<String>,
}

impl Options {
    /// Reads the arguments of a program that does nothing else; `twin bench` has its own, with help.
    ///
    /// # Panics
    /// If a value is missing or no number.
    pub(crate) fn from_args() -> Self {
        let mut options = Self {
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
        options
    }

    fn rounds(&self) -> Rounds {
        if self.quick {
            Rounds { count: 3, time: Duration::from_millis(200) }
        } else {
            Rounds { count: self.rounds.max(1), time: Duration::from_secs_f64(self.seconds.max(0.01)) }
        }
    }
}

/// Runs what was asked for; fails if a row did.
pub(crate) fn run(options: &Options, rows: &'static [Entry]) -> ExitCode {
    let result = match (&options.row, &options.subject) {
        (Some(row), Some(subject)) => bytes_of(rows, row, subject),
        (Some(row), None) => run_row(options, rows, row),
        (None, _) if options.list => list(rows),
        (None, _) => run_all(options, rows),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn list(rows: &[Entry]) -> Outcome {
    for entry in rows {
        print(&format!("{:<14} {}", entry.name, entry.question))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_all(options: &Options, rows: &[Entry]) -> Outcome {
    let mut failed = Vec::new();
    for wanted in &options.workloads {
        if !rows.iter().any(|entry| selects(wanted, entry.name)) {
            return Err(format!("no workload is called {wanted}; `--list` names them").into());
        }
    }
    let chosen = |entry: &&Entry| {
        options.workloads.is_empty() || options.workloads.iter().any(|wanted| selects(wanted, entry.name))
    };
    if !options.json {
        print(HEAD)?;
    }
    for entry in rows.iter().filter(chosen) {
        let forced = options.cpus.map(|cpus| vec![cpus]);
        for cpus in forced.unwrap_or_else(|| entry.cpus.to_vec()) {
            let row = format!("{}@{cpus}", entry.name);
            match child(&["--row", &row]) {
                Ok(line) if options.json => print(&line.to_string())?,
                Ok(line) => print(&table_line(&line))?,
                Err(error) => {
                    say(&format!("{row}: {error}"));
                    failed.push(row);
                }
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!("no figure for {}", failed.join(", ")).into())
}

/// `W3` selects `W3` and every `W3-…` and `W3+…`.
fn selects(wanted: &str, name: &str) -> bool {
    let rest = name.get(wanted.len()..).filter(|_| name.is_char_boundary(wanted.len()));
    let same = name.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted));
    same && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '+']))
}

/// Runs this program again with the same arguments and these.
fn child(more: &[&str]) -> Result<Value, Box<dyn std::error::Error>> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .args(std::env::args().skip(1))
        .args(more)
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("its process ended with {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
}

fn entry_of(rows: &'static [Entry], row: &str) -> Result<(&'static Entry, usize), Box<dyn std::error::Error>> {
    let (name, cpus) = row.split_once('@').ok_or("a row is called name@cpus")?;
    let entry = rows.iter().find(|entry| entry.name == name).ok_or("no such row")?;
    Ok((entry, cpus.parse()?))
}

fn run_row(options: &Options, rows: &'static [Entry], row: &str) -> Outcome {
    let (entry, wanted) = entry_of(rows, row)?;
    let cpus = machine::pin(wanted);
    if cpus != wanted {
        say(&format!("{row}: this machine gave {cpus} CPUs"));
    }
    let line = match entry.work {
        Work::Rates(build) => {
            let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
            let dir = parent.join(format!("twin-bench-{}", std::process::id()));
            std::fs::create_dir_all(&dir)?;
            let folder = Folder(dir.clone());
            let ready = build(&Setting { cpus, dir: dir.clone(), quick: options.quick });
            let durable = ready.durability == "fsync";
            let mut line = ready.run(cpus, options.rounds(), &mut progress).json();
            if durable {
                line["disk_syncs_per_s"] = json!(round(machine::disk_syncs_per_s(&dir)?));
            }
            drop(folder);
            line
        }
        Work::Bytes { subjects, most, peers } => bytes_line(options, entry.name, row, cpus, subjects, most, peers)?,
    };
    progress("");
    print(&line.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn bytes_line(
    options: &Options,
    name: &str,
    row: &str,
    cpus: usize,
    subjects: &[super::memory::Subject],
    most: [f64; 2],
    peers: Option<Peers>,
) -> Result<Value, Box<dyn std::error::Error>> {
    let runs = if options.quick || name != "W5" { 1 } else { 3 };
    let mut line = json!({
        "workload": name, "cpus": cpus, "driver": "b", "allocator": machine::allocator(),
        "durability": "none", "runs": runs, "others": {},
    });
    for subject in subjects {
        let mut bytes = Vec::new();
        for run in 1..=runs {
            progress(&format!("{row} run {run}/{runs} {}", subject.name));
            bytes.push(child(&["--row", row, "--subject", subject.name])?.as_f64().ok_or("a figure is missing")?);
        }
        let figure = json!(round(median(&bytes)));
        match subject.role {
            "other" => line["others"][subject.name] = json!({ "bytes": figure }),
            role => line[format!("{role}_bytes")] = figure,
        }
        if subject.role == "limit" {
            line["limit"] = json!(subject.name);
        }
    }
    if let Some(ours) = line["ours_bytes"].as_f64() {
        for role in ["limit", "naive"] {
            if let Some(theirs) = line[format!("{role}_bytes")].as_f64() {
                line[format!("ratio_{role}")] = json!(round(ours / theirs));
            }
        }
        let most = most[usize::from(machine::allocator() == "mimalloc")];
        for (_, figures) in line["others"].as_object_mut().into_iter().flatten() {
            figures["ratio"] = json!(figures["bytes"].as_f64().map(|theirs| round(ours / theirs)));
        }
        let smallest = peers.and_then(|peers| {
            let ratios = peers.names.iter().filter_map(|name| line["others"][name]["ratio"].as_f64());
            ratios.max_by(f64::total_cmp)
        });
        let bars = [
            report::bar("ours_bytes", Some(ours), Some(most), false),
            report::bar("ratio_smallest_peer", smallest, peers.map(|peers| peers.bar), false),
        ];
        line["bars"] = bars.into_iter().flatten().collect();
    }
    Ok(line)
}

fn bytes_of(rows: &'static [Entry], row: &str, subject: &str) -> Outcome {
    let (entry, cpus) = entry_of(rows, row)?;
    machine::pin(cpus);
    let Work::Bytes { subjects, .. } = entry.work else { return Err("this row measures no bytes".into()) };
    let subject = subjects.iter().find(|one| one.name == subject).ok_or("no such subject")?;
    let bytes = (subject.bytes_each)(cpus);
    print(&bytes.to_string())?;
    // A million actors are not worth an orderly end.
    std::process::exit(0)
}

/// A folder removed at the end, come what may.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            say(&format!("{} stays: {error}", self.0.display()));
        }
    }
}

fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// A line for people; nobody is harmed if it gets lost.
fn say(line: &str) {
    if writeln!(std::io::stderr().lock(), "{line}").is_err() {}
}

/// A word on what is being done, for people who wait.
pub(crate) fn progress(step: &str) {
    if std::io::IsTerminal::is_terminal(&std::io::stderr())
        && write!(std::io::stderr().lock(), "\r\x1b[K{step}").is_err()
    {}
}
