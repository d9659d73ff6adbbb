//! Values too large for a record, in pieces: the pieces first, then the head that makes them a blob.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join_all};

use super::{
    Inner,
    wire::{Outgoing, Stored, Unread},
};
use crate::{model::limits, store::Error};

/// Most bytes of a piece: a message of the servers has at most 1 MiB.
const PIECE_BYTES: usize = 512 * 1024;
/// Pieces without a head that are older are what a put left that never ended.
const HEADLESS_S: u64 = 3600;

impl Inner {
    pub(super) async fn put_blob(&self, id: [u8; 16], value: Vec<u8>) -> Result<(), Error> {
        self.check_open()?;
        let value = Bytes::from(value);
        let pieces = (0..value.len()).step_by(PIECE_BYTES).enumerate().map(|(at, from)| {
            let piece = value.slice(from..value.len().min(from + PIECE_BYTES));
            self.wire.store_again(Outgoing::new(self.names.piece(id, at), piece))
        });
        try_join_all(pieces).await?;
        self.wire.store_again(Outgoing::new(self.names.blob(id), value.len().to_string())).await?;
        Ok(())
    }

    /// A blob is never changed, so what is there is right from whichever replica; that it is absent, the leader says.
    pub(super) async fn get_blob(&self, id: [u8; 16]) -> Result<Option<Vec<u8>>, Error> {
        self.check_open()?;
        let subjects = [self.names.blob_whole(id)];
        let mut delays = self.wire.delays();
        loop {
            let why = match self.wire.newest(&self.names.blobs(), &subjects).await {
                Ok(newest) => match self.assembled(id, &newest.messages) {
                    Some(value) => return Ok(Some(value)),
                    None => "a replica lacks pieces of a blob".into(),
                },
                Err(Unread::Nothing) => "a replica lacks a blob".into(),
                Err(Unread::TooMany) => "a blob has too many pieces".into(),
                Err(Unread::Lost(why)) => why,
            };
            if self.wire.of_leader(&self.names.blobs(), &self.names.blob(id)).await?.is_none() {
                return Ok(None);
            }
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(Error::Unavailable(why.into())),
            }
        }
    }

    fn assembled(&self, id: [u8; 16], messages: &[Stored]) -> Option<Vec<u8>> {
        let of = |subject: &str| messages.iter().find(|stored| stored.subject == subject);
        let length = std::str::from_utf8(&of(&self.names.blob(id))?.payload).ok()?.parse().ok()?;
        let mut value = Vec::with_capacity(usize::min(length, limits::BLOB_BYTES_MAX));
        for at in 0..length.div_ceil(PIECE_BYTES) {
            value.extend_from_slice(&of(&self.names.piece(id, at))?.payload);
        }
        (value.len() == length).then_some(value)
    }

    pub(super) async fn sweep_blobs(&self, keep: HashSet<[u8; 16]>) -> Result<u64, Error> {
        self.check_open()?;
        let unavailable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string().into());
        let stream = self.wire.jetstream.get_stream_no_info(self.names.blobs()).await;
        let stream = stream.map_err(|error| unavailable(&error))?;
        let mut listed = stream.info_with_subjects(self.names.blob_all()).await.map_err(|error| unavailable(&error))?;
        let mut headed: HashMap<[u8; 16], bool> = HashMap::new();
        while let Some(subject) = listed.next().await {
            let (subject, _) = subject.map_err(|error| unavailable(&error))?;
            if let Some((id, is_head)) = self.names.blob_of(&subject) {
                *headed.entry(id).or_default() |= is_head;
            }
        }
        let newest = headed.keys().filter_map(|id| seconds_of(*id)).max().unwrap_or_default();
        let mut removed = 0;
        for (id, is_headed) in headed {
            let is_left = is_headed || seconds_of(id).is_none_or(|at| at + HEADLESS_S < newest);
            if keep.contains(&id) || self.unanswered.lock().contains(&id) || !is_left {
                continue;
            }
            // The head goes first, so that nobody finds half a blob.
            for subject in [self.names.blob(id), self.names.blob_whole(id)] {
                stream.purge().filter(subject).await.map_err(|error| unavailable(&error))?;
            }
            removed += u64::from(is_headed);
        }
        Ok(removed)
    }
}

/// When an id was made, in seconds since 1970.
fn seconds_of(id: [u8; 16]) -> Option<u64> {
    uuid::Uuid::from_bytes(id).get_timestamp().map(|at| at.to_unix().0)
}
