//! Who may import whom: docs/architecture.md, "The map", as a table.

use crate::source::{File, words};

/// A module of the root, and those that it may name beside itself.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("twin", &["model"]),
    ("metrics", &["model", "twin"]),
    ("store", &["model", "twin", "metrics"]),
    ("token", &["model", "twin"]),
    ("bus", &["model", "twin", "metrics", "store"]),
    ("cluster", &["model", "twin", "metrics", "store", "bus"]),
    ("capability", &["model", "twin", "metrics", "store", "bus"]),
    ("runtime", &["model", "twin", "metrics", "store", "bus", "cluster", "capability"]),
    ("wire", &[]),
    ("server", &["model", "twin", "token", "metrics", "bus", "capability", "runtime", "wire"]),
    ("cli", &["model", "twin", "token", "metrics", "capability", "runtime", "wire"]),
];

/// Modules that put the others together, and may name all of them.
const TOP: [&str; 4] = ["config", "app", "demo", "bench"];

/// Foreign crates, the only files (or folders) that may name them, and why.
const AT_HOME: [(&[&str], &[&str], &str); 9] = [
    (&["actix", "actix_rt"], &["src/runtime/"], "only the runtime knows what drives a shard"),
    (
        &["sled"],
        &["src/store/mod.rs", "src/store/sled.rs", "src/store/sled/", "src/store/committer.rs"],
        "only its store knows the engine",
    ),
    (
        &["axum", "opentelemetry_proto", "tower", "tower_http", "utoipa"],
        &["src/server/", "src/demo/"],
        "foreign wire types stop at the edge; the demo's services are ordinary ones",
    ),
    (&["prost"], &["src/server/", "src/demo/", "src/cluster/transport/"], "messages of gRPC are spoken where gRPC is"),
    (&["biscuit_auth", "biscuit_prost"], &["src/token/"], "only tokens know how they are signed and written"),
    (
        &["hyper", "hyper_util"],
        &["src/server/", "src/demo/", "src/cli/run/", "src/wire.rs"],
        "bytes of HTTP are moved at the edge; 'twin run' is a service's own door",
    ),
    (&["serde_saphyr"], &["src/cli/run/resources/"], "only what reads Dapr's resources knows YAML"),
    (
        &["async_nats"],
        &["src/store/nats/", "src/bus/nats.rs", "src/cluster/nats.rs"],
        "only what rests on the engine of a cluster knows it",
    ),
    (&["tonic"], &["src/server/", "src/cluster/transport/"], "gRPC is spoken at the edge and between nodes"),
    (
        &["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"],
        &["src/demo/", "src/demo.rs", "src/cli/demo/", "src/cli/demo.rs"],
        "only the demo's services are instrumented with an SDK",
    ),
];

/// What pure code does not have: clocks, chance, logs, threads, files, waiting, an order that changes by the run.
const IMPURE: [&str; 16] = [
    "Instant",
    "SystemTime",
    "SystemClock",
    "tracing",
    "rand",
    "now_v7",
    "new_v4",
    "tokio",
    "async",
    "await",
    "thread",
    "fs",
    "net",
    "HashMap",
    "HashSet",
    "RandomState",
];

/// The clock behind the trait that the others are given, and its re-export.
const CLOCK: [&str; 2] = ["src/model/time.rs", "src/model/mod.rs"];

/// Paths to a module that the file's own may not use.
pub(crate) fn upward(file: &File) -> Vec<String> {
    let Some(own) = file.module().first().cloned() else { return Vec::new() };
    if TOP.contains(&own.as_str()) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(module, _)| *module == own) else {
        return vec![format!("{}: module '{own}' has no layer: give it a row in tests/tidy/layers.rs", file.path)];
    };
    let complaint = |used: &str| {
        if used == own || allowed.contains(&used) {
            None
        } else if MAY_USE.iter().any(|(module, _)| *module == used) || TOP.contains(&used) {
            Some(format!("'{own}' may not use '{used}', only {}", list(allowed)))
        } else {
            Some(format!("'crate::{used}' hides its module: name it in full, so that its layer is seen"))
        }
    };
    let judged = file.named().into_iter().filter_map(|named| {
        let why = complaint(named.path.first()?)?;
        Some(format!("{}:{}: {why}", file.path, named.line))
    });
    judged.collect()
}

/// Foreign crates named outside the folder that owns them.
pub(crate) fn strangers(file: &File) -> Vec<String> {
    let code = file.code();
    let mut complaints = Vec::new();
    for (crates, homes, why) in AT_HOME {
        if homes.iter().any(|home| file.path.starts_with(home)) {
            continue;
        }
        for name in crates {
            for at in words(&code, name) {
                let (before, after) = (code[..at].trim_end(), &code[at + name.len()..]);
                let is_path = after.starts_with("::") && !before.ends_with("::");
                // In `use crate::store::{memory, sled::Options}` it is a module of ours.
                let statement = before.rfind(';').map_or(before, |end| &before[end..]);
                let is_ours = statement.rfind("use ").is_some_and(|start| statement[start..].contains("::{"));
                if (is_path && !is_ours) || before.ends_with("use") {
                    complaints.push(at_line(file, &code, at, &format!("'{name}' is not at home here: {why}")));
                }
            }
        }
    }
    complaints
}

/// What `model` and `twin` must not have.
pub(crate) fn impure(file: &File) -> Vec<String> {
    if CLOCK.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let code = file.code();
    let found = IMPURE.iter().flat_map(|word| {
        let code = &code;
        words(code, word).into_iter().filter_map(move |at| {
            let after = &code[at + word.len()..];
            // A crate or module counts only as the start or middle of a path: `net` may be a field's name.
            let is_module = ["tracing", "rand", "tokio", "thread", "fs", "net"].contains(word);
            (!is_module || after.starts_with("::"))
                .then(|| at_line(file, code, at, &format!("'{word}' in pure code: hand it in as an argument")))
        })
    });
    found.collect()
}

fn at_line(file: &File, code: &str, at: usize, what: &str) -> String {
    format!("{}:{}: {what}", file.path, 1 + code[..at].matches('\n').count())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing here".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upward_in(path: &str, text: &str) -> usize {
        upward(&File::sample(path, text)).len()
    }

    #[test]
    fn an_upward_import_is_found_however_it_is_written() {
        assert_eq!(upward_in("src/model/id.rs", "use crate::twin::Turn;"), 1);
        assert_eq!(upward_in("src/twin/mod.rs", "use super::runtime::Runtime;"), 1);
        assert_eq!(upward_in("src/store/sled.rs", "use crate::{model::Key, runtime::{Runtime, shard}};"), 2);
        assert_eq!(upward_in("src/server/http/api.rs", "fn f(s: &dyn crate::store::Store) {}"), 1);
        assert_eq!(upward_in("src/cli/mod.rs", "use crate::Runtime;"), 1, "a re-export hides its layer");
        assert_eq!(upward_in("src/extra/mod.rs", ""), 1, "a new module needs a layer");
        assert_eq!(upward_in("src/runtime/mod.rs", "use crate::{model::Key, store::Store}; use super::twin::Turn;"), 0);
        assert_eq!(upward_in("src/app.rs", "use crate::{server, store::sled};"), 0);
    }

    #[test]
    fn a_foreign_crate_outside_its_home_is_found() {
        let count = |path: &str, text: &str| strangers(&File::sample(path, text)).len();
        assert_eq!(count("src/store/memory.rs", "use actix::Actor;"), 1);
        assert_eq!(count("src/app.rs", "let db = sled::open(path);"), 1);
        assert_eq!(count("src/app.rs", "let db = store::sled::Sled::open(path);"), 0);
        assert_eq!(count("src/app.rs", "use crate::{model, store::{memory, sled::Options}};\nfn f() {}"), 0);
        assert_eq!(count("src/twin/mod.rs", "use crate::{a, b};\nfn f(x: &axum::Router) {}"), 1);
        assert_eq!(count("src/server/mod.rs", "use axum::Router;"), 0);
    }

    #[test]
    fn a_clock_a_log_or_a_hash_map_in_pure_code_is_found() {
        let count = |text: &str| impure(&File::sample("src/twin/a.rs", text)).len();
        assert_eq!(count("let now = std::time::Instant::now();"), 1);
        assert_eq!(count("tracing::info!(log);"), 1);
        assert_eq!(count("async fn f() { g().await }"), 2);
        assert_eq!(count("#[cfg(test)] mod tests { use std::collections::HashMap; }"), 0);
    }
}
