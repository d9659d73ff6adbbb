//! Documents: links that lead somewhere, tests that exist.

use std::{collections::BTreeSet, path::Path};

use crate::source::{File, words};

/// Where links lead.
pub(crate) trait Tree {
    /// The text at `path` from the root of the repository; empty for a folder or what is no text; `None` if absent.
    fn read(&self, path: &str) -> Option<String>;
}

/// The repository as it is.
pub(crate) struct Disk;

impl Tree for Disk {
    fn read(&self, path: &str) -> Option<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        path.exists().then(|| std::fs::read_to_string(path).unwrap_or_default())
    }
}

/// Relative links of a document whose file or heading is not there.
pub(crate) fn dead_links(file: &File, tree: &impl Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, target) in links(&file.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
        let path = if path.is_empty() { file.path.clone() } else { resolve(&file.path, path) };
        match tree.read(&path) {
            None => complaints.push(format!("{}:{line}: '{target}' leads to no file", file.path)),
            Some(text) if !heading.is_empty() && !headings(&text).contains(heading) => {
                complaints.push(format!("{}:{line}: '{path}' has no heading '#{heading}'", file.path));
            }
            Some(_) => {}
        }
    }
    complaints
}

/// Every name of a function, in Rust and Python.
pub(crate) fn functions(files: &[File]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files {
        let keyword = if file.path.rsplit('.').next() == Some("py") { "def" } else { "fn" };
        for at in words(&file.text, keyword) {
            let rest = file.text[at + keyword.len()..].trim_start();
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

/// Names in backticks that read like a test, `a_sentence_in_snake_case`, and are no function of `known`.
pub(crate) fn unknown_tests(file: &File, known: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for (at, line) in file.text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2) {
            let name = name.rsplit("::").next().unwrap_or(name);
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !plain || name.matches('_').count() < 2 {
                continue;
            }
            seen += 1;
            if !known.contains(name) {
                complaints.push(format!("{}:{}: there is no test '{name}'", file.path, at + 1));
            }
        }
    }
    if seen == 0 {
        complaints.push(format!("{}: names no test; write its name in backticks beside the promise", file.path));
    }
    complaints
}

/// Targets of Markdown links outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for (start, _) in prose.match_indices("](") {
            let target = prose[start + 2..].split([')', ' ']).next().unwrap_or_default();
            found.push((at + 1, target.to_owned()));
        }
    }
    found
}

/// A link's path from the root, given the document that holds it.
fn resolve(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> =
        if target.starts_with('/') { Vec::new() } else { document.split('/').rev().skip(1).collect() };
    parts.reverse();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a document's headings, as forges make them.
fn headings(text: &str) -> BTreeSet<String> {
    let slug = |title: &str| -> String {
        let kept = title.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;
    impl Tree for One {
        fn read(&self, path: &str) -> Option<String> {
            (path == "docs/guide.md").then(|| "# First steps, slowly\n".into())
        }
    }

    #[test]
    fn a_link_to_nothing_is_found_and_one_in_code_is_none() {
        let dead = |text: &str| dead_links(&File::sample("docs/a/b.md", text), &One).len();
        assert_eq!(dead("see [it](../guide.md) and [there](../guide.md#first-steps-slowly), [far](https://x.y/z)"), 0);
        assert_eq!(dead("see [it](guide.md)"), 1);
        assert_eq!(dead("see [it](../guide.md#last-steps)"), 1);
        assert_eq!(dead("`[it](guide.md)`\n```\n[it](guide.md)\n```"), 0);
    }

    #[test]
    fn a_promise_beside_a_test_that_is_gone_is_found() {
        let known = functions(&[File::sample("tests/it/a.rs", "#[test]\nfn a_reply_is_durable() {}\n")]);
        let unknown = |text: &str| unknown_tests(&File::sample("docs/guarantees.md", text), &known).len();
        assert_eq!(unknown("| durable | `tests/it/a.rs::a_reply_is_durable` |"), 0);
        assert_eq!(unknown("| durable | `a_reply_was_durable` |"), 1);
        assert_eq!(unknown("nothing is `promised`"), 1, "a page that names no test proves nothing");
    }
}
