//! Codes of `src/server/problem.rs` and their pages in `docs/problems/`, both directions.

use std::collections::BTreeSet;

use crate::source::File;

/// Codes without a page, and pages without a code.
pub(crate) fn complaints() -> Vec<String> {
    let source = File::under(&["src/server/problem.rs"], &["rs"]);
    let pages = File::under(&["docs/problems"], &["md"]);
    let found: BTreeSet<String> = source.iter().flat_map(codes).collect();
    if !source.is_empty() && found.is_empty() {
        return vec!["src/server/problem.rs: no row like `NotFound = \"not-found\", …` was found".into()];
    }
    compare(&found, &pages)
}

/// The codes of the table: rows like `NotFound = "not-found", …`.
fn codes(source: &File) -> BTreeSet<String> {
    let row = |line: &str| {
        let (variant, rest) = line.trim().split_once(" = \"")?;
        let (name, _) = rest.split_once("\",")?;
        (variant.starts_with(char::is_uppercase) && variant.chars().all(char::is_alphanumeric)).then(|| name.to_owned())
    };
    source.text.lines().filter_map(row).collect()
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
        let source = File::sample(
            "src/server/problem.rs",
            "    NotFound = \"not-found\", NOT_FOUND, Never;\nlet x = \"other\";",
        );
        let codes = codes(&source);
        assert_eq!(compare(&codes, &[]).len(), 1);
        assert_eq!(compare(&codes, &[File::sample("docs/problems/not-found.md", "")]), Vec::<String>::new());
        assert_eq!(compare(&codes, &[File::sample("docs/problems/lost.md", "")]).len(), 2);
    }
}
