//! Limit of W4: one thread that takes what waits, writes it into sled, flushes, calls fdatasync on an own handle of the
//! database file, and answers. The callers only build bytes that differ from the last.

use std::{fs::File, path::Path, sync::Arc, thread};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use super::super::{Client, hot};

/// Most updates of one flush.
const BATCH_MAX: usize = 256;

/// How a batch is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// `insert`, one after the other.
    Insert,
    /// One `apply_batch`.
    Batch,
}

struct Update {
    key: usize,
    value: Vec<u8>,
    reply: oneshot::Sender<()>,
}

/// Callers of the committer.
#[derive(Clone)]
pub(crate) struct Raw {
    send: Sender<Update>,
    keys: usize,
    value: Arc<[u8]>,
}

impl Raw {
    /// Starts the committer over a database at `path`; it ends when its callers are dropped.
    pub(crate) fn start(db: sled::Db, path: &Path, ids: &Arc<[String]>, value: &[u8], how: How) -> Self {
        let (send, receive) = bounded(1_024);
        let file = File::options().write(true).open(path.join("db")).expect("sled's file is there");
        let (keys, ids) = (ids.len(), ids.clone());
        thread::spawn(move || commit(&db, &file, &ids, how, &receive));
        Self { send, keys, value: value.into() }
    }
}

fn commit(db: &sled::Db, file: &File, ids: &[String], how: How, receive: &Receiver<Update>) {
    while let Ok(first) = receive.recv() {
        let mut updates = vec![first];
        updates.extend(receive.try_iter().take(BATCH_MAX - 1));
        let mut batch = sled::Batch::default();
        for update in &mut updates {
            let value = std::mem::take(&mut update.value);
            match how {
                How::Insert => drop(db.insert(&*ids[update.key], value).expect("sled writes")),
                How::Batch => batch.insert(&*ids[update.key], value),
            }
        }
        if how == How::Batch {
            db.apply_batch(batch).expect("sled writes");
        }
        db.flush().expect("sled flushes");
        file.sync_data().expect("the disk syncs");
        for update in updates {
            update.reply.send(()).expect("the caller waits");
        }
    }
}

impl Client for Raw {
    async fn call(&mut self, at: u64) -> u64 {
        let mut value = self.value.to_vec();
        value[..8].copy_from_slice(&(at + 1).to_le_bytes());
        let (reply, answer) = oneshot::channel();
        let sent = self.send.try_send(Update { key: hot(at, self.keys), value, reply });
        assert!(sent.is_ok(), "the channel holds more than the window");
        answer.await.expect("the committer answers");
        1
    }
}
