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

/// The keys of one update with the length of what is written under each.
pub(crate) type Shape = Vec<(String, usize)>;

struct Update {
    shape: usize,
    values: Vec<Vec<u8>>,
    reply: oneshot::Sender<()>,
}

/// Callers of the committer.
#[derive(Clone)]
pub(crate) struct Raw {
    send: Sender<Update>,
    shapes: Arc<[Shape]>,
    value: Arc<[u8]>,
}

impl Raw {
    /// Starts the committer over a database at `path`; it ends when its callers are dropped.
    pub(crate) fn start(db: sled::Db, path: &Path, shapes: Arc<[Shape]>, value: &[u8], how: How) -> Self {
        let (send, receive) = bounded(1_024);
        let file = File::options().write(true).open(path.join("db")).expect("sled's file is there");
        let of = shapes.clone();
        thread::spawn(move || commit(&db, &file, &of, how, &receive));
        Self { send, shapes, value: value.into() }
    }
}

fn commit(db: &sled::Db, file: &File, shapes: &[Shape], how: How, receive: &Receiver<Update>) {
    while let Ok(first) = receive.recv() {
        let mut updates = vec![first];
        updates.extend(receive.try_iter().take(BATCH_MAX - 1));
        let mut batch = sled::Batch::default();
        for update in &mut updates {
            for ((key, _), value) in shapes[update.shape].iter().zip(update.values.drain(..)) {
                match how {
                    How::Insert => drop(db.insert(key, value).expect("sled writes")),
                    How::Batch => batch.insert(key.as_str(), value),
                }
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
        let shape = hot(at, self.shapes.len());
        let value = |(_, length): &(String, usize)| {
            let mut value = self.value[..*length].to_vec();
            value[..8].copy_from_slice(&(at + 1).to_le_bytes());
            value
        };
        let values = self.shapes[shape].iter().map(value).collect();
        let (reply, answer) = oneshot::channel();
        let sent = self.send.try_send(Update { shape, values, reply });
        assert!(sent.is_ok(), "the channel holds more than the window");
        answer.await.expect("the committer answers");
        1
    }
}
