//! What no compiler checks: who imports whom, pages that exist, links that lead somewhere, files of readable size.
//!
//! Each rule is a function from text to complaints, so that each is also shown a sample that must fail.

mod docs;
mod layers;
mod problems;
mod source;

use source::File;

/// Longest file; near 400 lines one asks what second thing it does.
const FILE_LINES_MAX: usize = 600;

fn verdict(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}: {} to mend\n  {}", complaints.len(), complaints.join("\n  "));
}

#[test]
fn no_module_imports_a_higher_one() {
    let files = File::under(&["src"], &["rs"]);
    assert!(files.len() > 10, "the walk found the sources");
    verdict("layers (docs/architecture.md, The map)", &files.iter().flat_map(layers::upward).collect::<Vec<_>>());
}

#[test]
fn each_foreign_crate_stays_in_its_folder() {
    let files = File::under(&["src"], &["rs"]);
    verdict("foreign crates", &files.iter().flat_map(layers::strangers).collect::<Vec<_>>());
}

#[test]
fn model_and_twin_are_pure() {
    let files = File::under(&["src/model", "src/twin"], &["rs"]);
    verdict("purity", &files.iter().flat_map(layers::impure).collect::<Vec<_>>());
}

#[test]
fn every_problem_has_a_page_and_every_page_a_problem() {
    verdict("problem pages", &problems::complaints());
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let files = File::under(&["docs", "README.md", "CHANGELOG.md"], &["md"]);
    verdict("links", &files.iter().flat_map(|file| docs::dead_links(file, &docs::Disk)).collect::<Vec<_>>());
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let known = docs::functions(&File::under(&["src", "tests", "benches", "examples"], &["rs", "py"]));
    let guarantees = File::under(&["docs/guarantees.md"], &["md"]);
    verdict(
        "docs/guarantees.md",
        &guarantees.iter().flat_map(|file| docs::unknown_tests(file, &known)).collect::<Vec<_>>(),
    );
}

#[test]
fn every_mutation_still_applies() {
    let patches = ["tests/sim/mutations", "tests/cluster/mutations"].into_iter().flat_map(|folder| {
        let folder = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        folder.map(|patch| patch.expect("a readable folder").path())
    });
    let applies = |patch: &std::path::PathBuf| {
        let check = std::process::Command::new("git").args(["apply", "--check"]).arg(patch).output();
        let check = check.expect("git is installed");
        (!check.status.success()).then(|| String::from_utf8_lossy(&check.stderr).trim().to_owned())
    };
    let complaints: Vec<_> = patches.collect::<Vec<_>>().iter().filter_map(applies).collect();
    verdict("mutations", &complaints);
}

#[test]
fn no_file_is_too_long_to_read() {
    verdict("size", &everything().iter().filter_map(too_long).collect::<Vec<_>>());
}

#[test]
fn no_note_to_self_is_left() {
    verdict("notes", &everything().iter().flat_map(notes).collect::<Vec<_>>());
}

fn everything() -> Vec<File> {
    let roots = ["src", "tests", "benches", "examples", "fuzz", "docs", "scripts", "README.md", "CHANGELOG.md"];
    File::under(&roots, &["rs", "py", "mjs", "js", "html", "css", "md", "toml", ""])
}

fn too_long(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines, at most {FILE_LINES_MAX}: split it", file.path))
}

fn notes(file: &File) -> Vec<String> {
    const NOTES: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let found = |line: &str| NOTES.iter().any(|note| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == *note));
    let lines = file.text.lines().enumerate().filter(|(_, line)| found(line));
    lines.map(|(at, _)| format!("{}:{}: do it, or write an issue", file.path, at + 1)).collect()
}

#[test]
fn a_file_that_is_too_long_or_unfinished_is_found() {
    let long = File::sample("src/twin/long.rs", &"\n".repeat(FILE_LINES_MAX + 1));
    assert!(too_long(&long).is_some());
    let unfinished = File::sample("src/twin/a.rs", &format!("// {}: later\n", concat!("TO", "DO")));
    assert_eq!(notes(&unfinished).len(), 1);
    assert!(notes(&File::sample("src/twin/a.rs", "let mastodon = 1;")).is_empty());
}
