//! The pages of one twin that its messages named lately, as its turns left them; they live and die with the activation.
//!
//! What a turn writes is here before it is durable: if its commit fails the activation ends, and this with it.

use std::collections::BTreeMap;

use compact_str::CompactString;

use crate::twin::View;

/// What an entry takes beside its name and its bytes, about.
const ENTRY_BYTES: usize = 64;

/// Pages by name, at most so many bytes; the ones not used for longest leave first.
#[derive(Default)]
pub(super) struct Cache {
    pages: BTreeMap<CompactString, Kept>,
    bytes: usize,
    /// Counts uses.
    uses: u64,
}

struct Kept {
    /// `None` for a page that does not exist.
    value: Option<Vec<u8>>,
    used: u64,
}

impl Cache {
    /// Whether every one of these is known; then they count as used.
    pub(super) fn has(&mut self, names: &[String]) -> bool {
        self.uses += 1;
        let uses = self.uses;
        names.iter().all(|name| self.pages.get_mut(name.as_str()).map(|kept| kept.used = uses).is_some())
    }

    /// Whether this one is known.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.pages.contains_key(name)
    }

    /// Takes what a page is now; others leave if they are more than `bytes_max` together.
    pub(super) fn put(&mut self, name: &str, value: Option<Vec<u8>>, bytes_max: usize) {
        self.uses += 1;
        self.bytes += size(name, value.as_deref());
        let kept = Kept { value, used: self.uses };
        if let Some(before) = self.pages.insert(name.into(), kept) {
            self.bytes -= size(name, before.value.as_deref());
        }
        while self.bytes > bytes_max {
            let Some(oldest) = self.pages.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone()) else {
                break;
            };
            if let Some(gone) = self.pages.remove(&oldest) {
                self.bytes -= size(&oldest, gone.value.as_deref());
            }
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn size(name: &str, value: Option<&[u8]>) -> usize {
    ENTRY_BYTES + name.len() + value.map_or(0, <[u8]>::len)
}

/// The pages that a message named, and no others: what it reads does not depend on what else happens to be kept.
pub(super) struct Shown<'a> {
    pub(super) names: &'a [String],
    pub(super) cache: &'a Cache,
}

impl<'a> Shown<'a> {
    fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.cache.pages.get(name)?.value.as_deref()
    }
}

impl View for Shown<'_> {
    fn page(&self, name: &str) -> Option<&[u8]> {
        self.names.iter().any(|named| named == name).then(|| self.find(name)).flatten()
    }

    fn prefix<'a>(&'a self, prefix: &str) -> Vec<(&'a str, &'a [u8])> {
        let named = self.names.iter().filter(|name| name.starts_with(prefix));
        let mut found: Vec<_> = named.filter_map(|name| Some((name.as_str(), self.find(name)?))).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 3 * (ENTRY_BYTES + 1 + 10);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_least_recently_used_leave_when_the_bytes_are_full() {
        let mut cache = Cache::default();
        for name in ["a", "b", "c"] {
            cache.put(name, Some(vec![0; 10]), BYTES_MAX);
        }
        assert!(cache.has(&names(&["a"])));
        cache.put("d", Some(vec![0; 10]), BYTES_MAX);
        assert!(cache.has(&names(&["a", "c", "d"])) && !cache.has(&names(&["b"])));
        cache.put("e", Some(vec![0; 2 * BYTES_MAX]), BYTES_MAX);
        assert_eq!((cache.pages.len(), cache.bytes()), (0, 0), "what is too large alone is not kept");
    }

    #[test]
    fn a_page_put_again_counts_once() {
        let mut cache = Cache::default();
        for bytes in [10, 20, 5] {
            cache.put("a", Some(vec![0; bytes]), BYTES_MAX);
        }
        assert_eq!(cache.bytes(), ENTRY_BYTES + 1 + 5);
        cache.put("a", None, BYTES_MAX);
        assert!(cache.has(&names(&["a"])), "that it does not exist is known, too");
        assert_eq!(cache.bytes(), ENTRY_BYTES + 1);
    }

    #[test]
    fn only_what_was_named_is_shown() {
        let mut cache = Cache::default();
        cache.put("p/a", Some(vec![1]), BYTES_MAX);
        cache.put("p/b", Some(vec![2]), BYTES_MAX);
        cache.put("p/c", None, BYTES_MAX);
        let named = names(&["p/c", "p/b"]);
        let shown = Shown { names: &named, cache: &cache };
        assert_eq!((shown.page("p/a"), shown.page("p/b"), shown.page("p/c")), (None, Some(&[2][..]), None));
        assert_eq!(shown.prefix("p/"), [("p/b", &[2][..])]);
    }
}
