//! Jobs that would hold up a round and therefore advance one step a round.

use std::collections::HashSet;

use super::{Committer, Disk, Write, round::Entry};
use crate::store::{Done, Error, Item, keyspace};

/// Pieces of a blob written in one step.
const STEP_PIECES: usize = 8;
/// Blobs looked at in one step of a sweep.
const STEP_BLOBS: usize = 64;

/// A job in progress.
pub(super) enum Long {
    /// Pieces first, the blob's own key with the last of them, answered when that is synced.
    Blob { id: [u8; 16], value: Vec<u8>, written: usize, done: Done<[u8; 16]> },
    /// Walks all ids in order; `young` are those it must leave alone because their put was or is not answered.
    Sweep { keep: HashSet<[u8; 16]>, young: HashSet<[u8; 16]>, at: keyspace::Bytes, removed: u64, done: Done<u64> },
}

/// What a step came to.
pub(super) enum Step {
    Again(Long),
    Over(Entry),
}

/// About how many bytes an item will write.
pub(super) fn bytes_of(item: &Item) -> usize {
    match item {
        Item::Claimed { .. } => 16,
        Item::Core { core, .. } => core.len(),
        Item::Page { value, .. } | Item::Blob { value, .. } => value.len(),
    }
}

impl Long {
    pub(super) fn blob(id: [u8; 16], value: Vec<u8>, done: Done<[u8; 16]>) -> Self {
        Self::Blob { id, value, written: 0, done }
    }

    pub(super) fn sweep(keep: HashSet<[u8; 16]>, young: HashSet<[u8; 16]>, done: Done<u64>) -> Self {
        Self::Sweep { keep, young, at: keyspace::blob([0; 16]), removed: 0, done }
    }

    /// Has a sweep leave a blob alone.
    pub(super) fn spare(&mut self, id: [u8; 16]) {
        match self {
            Self::Blob { .. } => {}
            Self::Sweep { young, .. } => {
                young.insert(id);
            }
        }
    }

    /// Answers that it was not done.
    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Blob { done, .. } => done(Err(error)),
            Self::Sweep { done, .. } => done(Err(error)),
        }
    }
}

impl<D: Disk> Committer<D> {
    /// Advances a job; an error is the disk's and the job is lost with it.
    #[expect(clippy::result_large_err, reason = "an error ends the store")]
    pub(super) fn step(&mut self, long: Long) -> Result<Step, (Long, String)> {
        match long {
            Long::Blob { id, value, written, done } => match self.step_blob(id, &value, written) {
                Err(cause) => Err((Long::Blob { id, value, written, done }, cause)),
                Ok(written) if written < value.len() => Ok(Step::Again(Long::Blob { id, value, written, done })),
                Ok(_) => Ok(Step::Over(Entry::Blob { id, done })),
            },
            Long::Sweep { keep, young, mut at, removed, done } => match self.step_sweep(&keep, &young, &mut at) {
                Err(cause) => Err((Long::Sweep { keep, young, at, removed, done }, cause)),
                Ok((more, count)) => {
                    let removed = removed + count;
                    Ok(if more {
                        Step::Again(Long::Sweep { keep, young, at, removed, done })
                    } else {
                        Step::Over(Entry::Sweep { removed, done })
                    })
                }
            },
        }
    }

    fn step_blob(&mut self, id: [u8; 16], value: &[u8], written: usize) -> Result<usize, String> {
        self.long.iter_mut().for_each(|other| other.spare(id));
        let first = written / keyspace::PIECE_BYTES;
        let mut reached = written;
        for (at, piece) in value[written..].chunks(keyspace::PIECE_BYTES).take(STEP_PIECES).enumerate() {
            let number = u16::try_from(first + at).map_err(|_| "a blob has too many pieces".to_owned())?;
            self.disk.insert(&keyspace::piece(id, number), piece)?;
            reached += piece.len();
        }
        if reached == value.len() {
            // The blob's own key promises its pieces, so they are safe first.
            self.sync()?;
            let length = u32::try_from(value.len()).map_err(|_| "a blob is too long".to_owned())?;
            self.disk.insert(&keyspace::blob(id), &length.to_le_bytes())?;
        }
        Ok(reached)
    }

    fn step_sweep(
        &mut self,
        keep: &HashSet<[u8; 16]>,
        young: &HashSet<[u8; 16]>,
        at: &mut keyspace::Bytes,
    ) -> Result<(bool, u64), String> {
        let mut removed = 0;
        for _ in 0..STEP_BLOBS {
            let Some(id) = self.disk.seek(at)?.and_then(|key| keyspace::blob_of(&key)).map(|(id, _)| id) else {
                return Ok((false, removed));
            };
            let end = keyspace::end_of(&keyspace::blob(id));
            if !keep.contains(&id) && !young.contains(&id) {
                let mut gone: Vec<Write> = Vec::new();
                let mut from = keyspace::blob(id);
                while let Some(key) = self.disk.seek(&from)?.filter(|key| *key < end) {
                    from.clone_from(&key);
                    from.push(0);
                    gone.push((key, None));
                }
                let whole = gone.first().is_some_and(|(key, _)| keyspace::blob_of(key) == Some((id, true)));
                self.disk.batch(&mut gone)?;
                removed += u64::from(whole);
            }
            *at = end;
        }
        Ok((true, removed))
    }
}
