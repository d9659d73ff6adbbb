//! Codes of `src/server/problem.rs` and their pages in `docs/problems/`, both directions.

use std::collections::BTreeSet;

use crate::source::File;

/// Codes without a page, and pages without a code.
pub(crate) fn complaints() -> Vec<String> {
    let source = File::under(&["src/server/problem.rs"], &["rs"]);
    let pages = File::under(&["docs/problems"], &["md"]);
    compare(&source.iter().flat_map(codes).collect(), &pages)
}

/// The codes of the table: kebab-case literals of two words or more, tests left out.
fn codes(source: &File) -> BTreeSet<String> {
    let table = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let kebab = |text: &&str| {
        text.contains('-') && text.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !text.starts_with('-')
    };
    let lines = table.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(kebab).map(str::to_owned).collect()
}

fn compare(codes: &BTreeSet<String>, pages: &[File]) -> Vec<String> {
    let name = |file: &File| file.path.trim_start_matches("docs/problems/").trim_end_matches(".md").to_owned();
    let pages: BTreeSet<String> = pages.iter().map(name).filter(|name| name != "README").collect();
    let missing = codes.difference(&pages).map(|code| format!("code '{code}' has no page docs/problems/{code}.md"));
    let stale = pages.difference(codes).map(|page| format!("docs/problems/{page}.md explains no code of problem.rs"));
    missing.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_without_a_page_and_a_page_without_a_code_are_found() {
        let source =
            File::sample("src/server/problem.rs", "// \"in-prose\"\nfn code() -> &'static str { \"not-found\" }");
        let codes = codes(&source);
        assert_eq!(compare(&codes, &[]).len(), 1);
        assert_eq!(compare(&codes, &[File::sample("docs/problems/not-found.md", "")]), Vec::<String>::new());
        assert_eq!(compare(&codes, &[File::sample("docs/problems/lost.md", "")]).len(), 2);
    }
}
