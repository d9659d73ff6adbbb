//! What a decision may read besides the state.

use crate::model::{Header, Key, Timestamp};

/// The circumstances of one turn, as data.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// The time of the turn; the same for everything in it.
    pub now: Timestamp,
    /// The twin's own key.
    pub key: &'a Key,
    /// Changes applied so far; the first change makes 1.
    pub revision: u64,
    /// Principal, trace, deadline, idempotency key, path.
    pub header: &'a Header,
    pages: Option<&'a dyn View>,
}

/// Where a turn finds the pages its message named: staged writes first, then what was loaded.
pub trait View {
    /// The page's bytes; `None` if it does not exist.
    fn page(&self, name: &str) -> Option<&[u8]>;
    /// Every loaded page whose name starts so, in name order.
    fn prefix<'a>(&'a self, prefix: &str) -> Vec<(&'a str, &'a [u8])>;
}

impl View for super::Pages {
    fn page(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(|bytes| &bytes[..])
    }

    fn prefix<'a>(&'a self, prefix: &str) -> Vec<(&'a str, &'a [u8])> {
        let from = self.range(prefix.to_owned()..);
        from.take_while(|(name, _)| name.starts_with(prefix)).map(|(name, bytes)| (&name[..], &bytes[..])).collect()
    }
}

impl<'a> Turn<'a> {
    /// A turn without pages.
    pub fn new(now: Timestamp, key: &'a Key, revision: u64, header: &'a Header) -> Self {
        Self { now, key, revision, header, pages: None }
    }

    /// The same with the pages that the message named.
    #[must_use]
    pub fn with_pages(self, pages: &'a dyn View) -> Self {
        Self { pages: Some(pages), ..self }
    }

    /// A page that the message named in [`super::Message::needs`]; `None` if it does not exist.
    pub fn page(&self, name: &str) -> Option<&'a [u8]> {
        self.pages.and_then(|pages| pages.page(name))
    }

    /// The pages under a prefix that the message named.
    pub fn prefix(&self, prefix: &str) -> Vec<(&'a str, &'a [u8])> {
        self.pages.map(|pages| pages.prefix(prefix)).unwrap_or_default()
    }
}

/// The pages that a message's turn reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// None: the turn never waits for storage.
    #[default]
    Nothing,
    /// These, at most [`crate::model::limits::NEEDS_KEYS_MAX`].
    Pages(Vec<String>),
    /// At most `limit` pages whose name starts so and is greater than `after`.
    Prefix {
        /// The prefix.
        prefix: String,
        /// Where to go on.
        after: Option<String>,
        /// Most pages.
        limit: usize,
    },
}
