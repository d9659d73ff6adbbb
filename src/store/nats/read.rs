//! Reading one twin.
//!
//! Any replica may answer, and any may be behind. What it says is believed if it has applied everything that this node
//! was told is stored, and, for an owner, if it shows the ownership under which is asked: who sees that message has
//! seen all before it, and nobody else writes the slot after it.

use std::sync::atomic::Ordering;

use compact_str::CompactString;
use futures_util::StreamExt;

use super::{
    Inner,
    names::{Beside, GONE, Subject},
    wire::{Stored, Unread},
};
use crate::{
    model::Key,
    store::{Address, Epoch, Error, Load, Loaded, Prefix, Slot},
};

/// Subjects read at once by name; a replica answers at most 1,024.
const SUBJECTS_AT_ONCE: usize = 256;

/// Why nothing was read.
enum Failed {
    TooMany,
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Inner {
    pub(super) async fn load(&self, load: &Load) -> Result<Loaded, Error> {
        self.check_open()?;
        let address = &*load.address;
        let slot = Slot::of(Key::hash_of(&address.key));
        if let Some(ours) = load.under
            && let Some(allowed) = self.table.lock().allows(slot, ours)
        {
            allowed?;
        }
        let core = load.core.then(|| self.names.core(slot, address));
        let pages = load.pages.iter().map(|name| self.names.page(slot, address, name));
        let named: Vec<String> = core.into_iter().chain(pages).collect();
        let run = load.prefix.as_ref().map(|prefix| self.names.pages(slot, address, &prefix.prefix));
        let mut subjects = named.clone();
        subjects.extend(run.clone());
        let messages = match (self.fresh(slot, load.under, &subjects).await, run, &load.prefix) {
            (Ok(messages), ..) => messages,
            (Err(Failed::TooMany), Some(run), Some(prefix)) => {
                let mut messages = self.fresh(slot, load.under, &named).await.map_err(too_many)?;
                let mut live = 0;
                for part in self.listed(slot, load.under, &run, prefix).await?.chunks(SUBJECTS_AT_ONCE) {
                    let read = self.fresh(slot, load.under, part).await.map_err(too_many)?;
                    // Deleted pages leave a trace for a while, and count for nothing.
                    live += read.iter().filter(|stored| part.contains(&stored.subject) && !is_gone(stored)).count();
                    messages.extend(read);
                    if live >= prefix.limit {
                        break;
                    }
                }
                messages
            }
            (Err(failed), ..) => return Err(too_many(failed)),
        };
        self.loaded(load, messages)
    }

    fn loaded(&self, load: &Load, messages: Vec<Stored>) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let mut run = Vec::new();
        for stored in messages {
            match self.names.parse(&stored.subject) {
                Some(Subject::Core(_)) if load.core => {
                    self.remember(load, &stored)?;
                    loaded.core = Some(stored.payload.into());
                }
                Some(Subject::Page(_, name)) if !is_gone(&stored) => {
                    let page = (name, Vec::from(stored.payload));
                    if load.pages.contains(&page.0) {
                        loaded.pages.push(page);
                    } else {
                        run.push(page);
                    }
                }
                Some(Subject::Own(_) | Subject::Core(_) | Subject::Page(..) | Subject::Mark) => {}
                None => return Err(unreadable(&stored.subject)),
            }
        }
        if let Some(wanted) = &load.prefix {
            // What was asked for by name may be in the run, too, and takes a place in it.
            run.extend(loaded.pages.iter().cloned());
            run.retain(|(name, _)| is_in(wanted, name));
            run.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            run.dedup_by(|(one, _), (other, _)| one == other);
            run.truncate(wanted.limit);
            loaded.pages.append(&mut run);
        }
        loaded.pages.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        loaded.pages.dedup_by(|(one, _), (other, _)| one == other);
        Ok(loaded)
    }

    /// Keeps the sequence of a record that its owner reads, so that the next commit need not.
    fn remember(&self, load: &Load, core: &Stored) -> Result<(), Error> {
        let Some(epoch) = load.under else { return Ok(()) };
        let beside = Beside::read(&core.headers).ok_or_else(|| unreadable(&core.subject))?;
        let slot = Slot::of(Key::hash_of(&load.address.key));
        self.table.lock().put(slot, epoch, &load.address, beside, core.sequence);
        Ok(())
    }

    /// The sequence of a twin's record, 0 without one.
    pub(super) async fn read_sequence(&self, slot: Slot, epoch: Epoch, address: &Address) -> Result<u64, Error> {
        let subject = self.names.core(slot, address);
        let messages = self.fresh(slot, Some(epoch), &[subject]).await.map_err(too_many)?;
        for stored in messages {
            if let Some(Subject::Core(_)) = self.names.parse(&stored.subject) {
                let beside = Beside::read(&stored.headers).ok_or_else(|| unreadable(&stored.subject))?;
                let sequence = beside.sequence;
                self.table.lock().put(slot, epoch, address, beside, stored.sequence);
                return Ok(sequence);
            }
        }
        Ok(0)
    }

    /// Reads the newest messages of subjects of one slot; see the module for what is believed.
    async fn fresh(&self, slot: Slot, under: Option<Epoch>, subjects: &[String]) -> Result<Vec<Stored>, Failed> {
        let place = self.names.place(slot);
        let stream = self.names.stream(place);
        // The mark is always there, so that a replica that has nothing else says how far it is.
        let anchor = if under.is_some() { self.names.own(slot) } else { self.names.mark(place) };
        let asked: Vec<String> = std::iter::once(anchor.clone()).chain(subjects.iter().cloned()).collect();
        let least = self.acked[usize::from(place)].load(Ordering::Acquire);
        let mut delays = self.wire.delays();
        let mut why: CompactString = "every replica that answered was behind".into();
        loop {
            match self.wire.newest(&stream, &asked).await {
                Ok(newest) if newest.up_to >= least => {
                    let own = newest.messages.iter().find(|stored| stored.subject == anchor);
                    let shown = Epoch(own.map_or(0, |own| own.sequence));
                    match under {
                        None => return Ok(newest.messages),
                        Some(ours) if shown == ours => return Ok(newest.messages),
                        Some(ours) if shown > ours => return Err(Error::Fenced { ours, owner: shown }.into()),
                        Some(_) => {}
                    }
                }
                Ok(_) | Err(Unread::Nothing) => {}
                Err(Unread::TooMany) => return Err(Failed::TooMany),
                Err(Unread::Lost(lost)) => why = lost.into(),
            }
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => break,
            }
        }
        if let Some(ours) = under {
            let owner = Epoch(self.read_own(slot).await?.map_or(0, |own| own.sequence));
            if owner != ours {
                return Err(Error::Fenced { ours, owner }.into());
            }
        }
        Err(Error::Unavailable(why.as_str().into()).into())
    }

    /// The subjects of a run of pages that are too many to be read at once. The list is believed if it comes from a
    /// replica that has everything this owner wrote; whether it still is the owner shows when they are read.
    async fn listed(
        &self,
        slot: Slot,
        under: Option<Epoch>,
        filter: &str,
        wanted: &Prefix,
    ) -> Result<Vec<String>, Error> {
        let place = self.names.place(slot);
        let unavailable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string().into());
        let least = self.acked[usize::from(place)].load(Ordering::Acquire).max(under.map_or(0, |epoch| epoch.0));
        let stream = self.wire.jetstream.get_stream_no_info(self.names.stream(place)).await;
        let stream = stream.map_err(|error| unavailable(&error))?;
        let mut listed = stream.info_with_subjects(filter).await.map_err(|error| unavailable(&error))?;
        if listed.info.state.last_sequence < least {
            return Err(Error::Busy("the stream's leader is behind"));
        }
        let mut found: Vec<(CompactString, String)> = Vec::new();
        while let Some(subject) = listed.next().await {
            let (subject, _) = subject.map_err(|error| unavailable(&error))?;
            if let Some(Subject::Page(_, name)) = self.names.parse(&subject)
                && is_in(wanted, &name)
            {
                found.push((name, subject));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, subject)| subject).collect())
    }
}

fn is_in(wanted: &Prefix, name: &CompactString) -> bool {
    name.starts_with(wanted.prefix.as_str()) && wanted.after.as_ref().is_none_or(|after| name > after)
}

fn is_gone(stored: &Stored) -> bool {
    stored.headers.get(GONE).is_some()
}

fn too_many(failed: Failed) -> Error {
    match failed {
        Failed::TooMany => Error::TooBig { what: "number of pages", actual: 1025, max: 1024 },
        Failed::Error(error) => error,
    }
}

pub(super) fn unreadable(subject: &str) -> Error {
    Error::Unavailable(format!("a message does not read: {subject}").into())
}
