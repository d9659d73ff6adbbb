//! Rust text without comments, strings and test modules, and the paths in it.

use std::{fs, path::Path};

/// One file of the repository.
pub(crate) struct File {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
}

/// A path that code names, from the root of our crate, and where.
pub(crate) struct Named {
    /// One-based.
    pub(crate) line: usize,
    /// Its segments, without `crate`.
    pub(crate) path: Vec<String>,
}

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 5] = ["target", "node_modules", "golden", "corpus", "__pycache__"];

impl File {
    /// Every file below `roots` (files or folders; absent ones hold none) whose extension is among `extensions`.
    pub(crate) fn under(roots: &[&str], extensions: &[&str]) -> Vec<Self> {
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for root in roots {
            walk(base, &base.join(root), extensions, &mut found);
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// A file that exists only in a test.
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The code alone: comments, strings and `#[cfg(test)]` items blanked, lines kept.
    ///
    /// Empty for `tests.rs` and what lies in `tests/`: a parent declares those under `#[cfg(test)]`.
    pub(crate) fn code(&self) -> String {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        without_tests(&without_text(&self.text))
    }

    /// The module that the file is, from the root of the crate: `src/a/mod.rs` and `src/a.rs` are `[a]`.
    pub(crate) fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            module.pop();
        }
        module
    }

    /// Every `crate::` and `super::` path in the code, as a path from the root of the crate.
    pub(crate) fn named(&self) -> Vec<Named> {
        let code = self.code();
        let mut named = Vec::new();
        for word in ["crate", "super"] {
            for at in words(&code, word) {
                if !code[at + word.len()..].starts_with("::") || code[..at].ends_with("super::") {
                    continue;
                }
                let mut base = if word == "crate" { Vec::new() } else { self.module_at(&code, at) };
                let mut rest = &code[at..];
                while let Some(after) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = after;
                }
                let line = 1 + code[..at].matches('\n').count();
                let mut leaves = Vec::new();
                tree(rest.strip_prefix("crate::").unwrap_or(rest), &base, &mut leaves);
                named.extend(leaves.into_iter().map(|path| Named { line, path }));
            }
        }
        named
    }

    /// The module around byte `at`: the file's, and the inline ones that are open there.
    fn module_at(&self, code: &str, at: usize) -> Vec<String> {
        let mut module = self.module();
        for start in words(&code[..at], "mod") {
            let name: String = code[start + 3..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            let Some(open) = code[start..at].find(['{', ';']).map(|offset| start + offset) else { continue };
            if code[open..].starts_with('{') && closing(code, open).is_none_or(|close| close > at) {
                module.push(name);
            }
        }
        module
    }
}

fn walk(base: &Path, path: &Path, extensions: &[&str], found: &mut Vec<File>) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if path.is_dir() && !SKIPPED.contains(&name) {
        for entry in fs::read_dir(path).expect("a folder of the repository can be listed") {
            walk(base, &entry.expect("a folder of the repository can be listed").path(), extensions, found);
        }
    } else if path.is_file() && extensions.contains(&path.extension().and_then(|e| e.to_str()).unwrap_or("")) {
        let relative = path.strip_prefix(base).expect("the walk stays below its base");
        // What is no text has no lines to judge.
        if let Ok(text) = fs::read_to_string(path) {
            found.push(File { path: relative.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands as a whole word.
pub(crate) fn words(code: &str, word: &str) -> Vec<usize> {
    let whole = |at: &usize| {
        !code[..*at].chars().next_back().is_some_and(is_word)
            && !code[at + word.len()..].chars().next().is_some_and(is_word)
    };
    code.match_indices(word).map(|(at, _)| at).filter(whole).collect()
}

/// The brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(open + at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Reads one use-tree or path at the start of `text` into its leaves; answers how many bytes it took.
fn tree(text: &str, base: &[String], leaves: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            while at < text.len() && !text[at..].starts_with('}') {
                at += tree(&text[at..], &path, leaves);
                // What is left of the leaf, ` as Other`, and the comma.
                at += text[at..].find(|c| !is_word(c) && c != ' ').unwrap_or(0);
                at += text[at..].chars().next().filter(|c| *c != '}').map_or(0, char::len_utf8);
                at += text[at..].len() - text[at..].trim_start().len();
            }
            return at + 1;
        }
        let segment: String = text[at..].chars().take_while(|c| is_word(*c)).collect();
        if segment.is_empty() {
            break;
        }
        at += segment.len();
        path.push(segment);
        match text[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => break,
        }
    }
    if path.len() > base.len() {
        leaves.push(path);
    }
    at
}

/// Blanks comments and the inside of literals.
fn without_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = literal(rest, out.chars().next_back());
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    out
}

/// How many bytes of comment or literal stand at the start of `text`.
fn literal(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if !before.is_some_and(is_word) {
        let raw = text.trim_start_matches(['b', 'c']).strip_prefix('r').filter(|_| text.len() > 2);
        if let Some(raw) = raw {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            if let Some(inner) = raw[hashes..].strip_prefix('"') {
                let end = format!("\"{}", "#".repeat(hashes));
                let opened = text.len() - inner.len();
                return inner.find(&end).map_or(text.len(), |at| opened + at + end.len());
            }
        }
    }
    let mut after = text.chars();
    match (after.next(), after.next(), after.next()) {
        (Some('\''), Some('\\'), _) | (Some('\''), Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

/// Length of the literal at the start of `text` that `quote` opens and closes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let Some(end) = code[start..].find(['{', ';']).map(|offset| start + offset) else { continue };
        let end = if code[end..].starts_with('{') { closing(code, end).unwrap_or(end) } else { end };
        let blank: String = code[start..=end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        // Bytes may shrink only where non-ASCII text stood; those are blanked before, so lengths agree.
        if blank.len() == end + 1 - start {
            out.replace_range(start..=end, &blank);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str, text: &str) -> Vec<String> {
        let mut paths: Vec<String> =
            File::sample(path, text).named().into_iter().map(|named| named.path.join("::")).collect();
        paths.sort();
        paths
    }

    #[test]
    fn a_use_tree_is_read_to_its_leaves() {
        let text = "use crate::{\n    model::{Key, id::{self, Other as Mine}},\n    store,\n};";
        assert_eq!(named("src/runtime/a.rs", text), ["model::Key", "model::id::Other", "model::id::self", "store"]);
        assert_eq!(named("src/runtime/a.rs", "fn f(x: crate::twin::Turn<'_>) {}"), ["twin::Turn"]);
    }

    #[test]
    fn super_is_resolved_through_files_and_inline_modules() {
        assert_eq!(named("src/store/sled.rs", "use super::{memory::Memory};"), ["store::memory::Memory"]);
        assert_eq!(named("src/store/mod.rs", "use super::runtime::Runtime;"), ["runtime::Runtime"]);
        assert_eq!(named("src/a/b.rs", "mod c { use super::super::d; }\nuse super::e;"), ["a::d", "a::e"]);
    }

    #[test]
    fn comments_strings_and_test_modules_name_nothing() {
        let text = "// crate::server\n/* crate::server */ const A: &str = \"crate::server\"; const C: char = '\"';\n\
                    const B: &str = r#\"crate::server \" \"#; fn f<'a>(x: &'a str) {}\n\
                    #[cfg(test)]\nmod tests { use crate::server; fn g() { {} } }\nuse crate::model::Key;";
        assert_eq!(named("src/twin/a.rs", text), ["model::Key"]);
    }
}
