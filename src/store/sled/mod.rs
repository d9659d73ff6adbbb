//! The embedded default: sled 0.34.7 under one committer thread.
//!
//! Reads of one twin run on the caller's thread; walks and blobs on a reader thread; everything that writes on the
//! committer's. What sled is trusted with and what not: `docs/formats.md`.

mod disk;
mod mark;
mod pace;
mod walk;

pub use disk::OpenError;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};

use self::{disk::SledDisk, pace::Pace};
use super::{
    Commit, Done, Epoch, Error, Item, Level, Load, Loaded, Refused, Scan, Slot, Stats, Store, Walked,
    committer::{Committer, Job, Shared},
};
use crate::model::limits;

/// Reads waiting for the reader thread.
const READS_MAX: usize = 256;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a commit survives.
    pub level: Level,
    /// Bytes of sled's page cache.
    pub cache_bytes: u64,
    /// Commits that may wait; one more is handed back.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: Level::Fsync, cache_bytes: 64 * 1024 * 1024, queue: 4096 }
    }
}

/// Threads that read twins while the disk is slow.
const LOADERS: usize = 4;
/// Twins that may wait for them; more are refused as busy, which their activations try again.
const LOADS_MAX: usize = 4096;

type Wanted = (Load, Done<Loaded>);

enum Read {
    Scan { scan: Scan, done: Done<Walked> },
    Blob { id: [u8; 16], done: Done<Option<Vec<u8>>> },
}

/// Who may still hand in work; gone after [`Store::close`].
struct Doors {
    jobs: Sender<Job>,
    reads: Sender<Read>,
    loads: Sender<Wanted>,
}

/// A store in a directory; see the module. Dropping it closes it and waits until its threads have ended.
pub struct SledStore {
    disk: Arc<SledDisk>,
    shared: Arc<Shared>,
    pace: Arc<Pace>,
    doors: RwLock<Option<Doors>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    level: Level,
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledStore").field("level", &self.level).finish_non_exhaustive()
    }
}

impl SledStore {
    /// Opens a directory, or makes it.
    ///
    /// Blocks: up to 5 s while another process holds the directory, and while sled recovers.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let disk = Arc::new(SledDisk::open(path, options)?);
        let shared = Arc::new(Shared::default());
        let (jobs, to_commit) = bounded(options.queue.max(1));
        let (reads, to_read) = bounded(READS_MAX);
        let (loads, to_load) = bounded::<Wanted>(LOADS_MAX);
        let pace = Arc::new(Pace::default());
        let committer = Committer::new(disk.clone(), to_commit, shared.clone());
        let reader = disk.clone();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|error| OpenError::Thread(error.to_string()))
        };
        let mut threads = vec![
            spawn("store-committer", Box::new(move || committer.run()))?,
            spawn("store-reader", Box::new(move || read_on(&reader, &to_read)))?,
        ];
        for _ in 0..LOADERS {
            let (disk, shared, pace, to_load) = (disk.clone(), shared.clone(), pace.clone(), to_load.clone());
            let load_on = move || to_load.iter().for_each(|(load, done)| done(read_one(&disk, &shared, &pace, &load)));
            threads.push(spawn("store-loader", Box::new(load_on))?);
        }
        Ok(Self {
            disk,
            shared,
            pace,
            doors: RwLock::new(Some(Doors { jobs, reads, loads })),
            threads: Mutex::new(threads),
            level: options.level,
        })
    }

    /// Hands a rare job to the committer, or gives it back with the reason.
    #[expect(clippy::result_large_err, reason = "a refused job goes back whole")]
    fn hand_in(&self, job: Job) -> Result<(), (Job, Error)> {
        match &*self.doors.read() {
            None => Err((job, closed())),
            Some(doors) => doors.jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) => (job, Error::Busy("the store's queue")),
                TrySendError::Disconnected(job) => (job, closed()),
            }),
        }
    }

    fn read(&self, read: Read) {
        let refused = match &*self.doors.read() {
            None => Err((read, closed())),
            Some(doors) => doors.reads.try_send(read).map_err(|error| match error {
                TrySendError::Full(read) => (read, Error::Busy("the store's queue of reads")),
                TrySendError::Disconnected(read) => (read, closed()),
            }),
        };
        match refused {
            Ok(()) => {}
            Err((Read::Scan { done, .. }, error)) => done(Err(error)),
            Err((Read::Blob { done, .. }, error)) => done(Err(error)),
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

fn read_one(disk: &SledDisk, shared: &Shared, pace: &Pace, load: &Load) -> Result<Loaded, Error> {
    // A commit of unknown outcome may be in sled's memory and not on the disk: after a failure nothing is read.
    shared.healthy()?;
    pace.timed(|| disk.guarded(|tree| walk::load(tree, load)))
}

fn read_on(disk: &SledDisk, reads: &Receiver<Read>) {
    for read in reads {
        match read {
            Read::Scan { scan, done } => done(disk.guarded(|tree| walk::scan(tree, scan))),
            Read::Blob { id, done } => done(disk.guarded(|tree| walk::blob(tree, id))),
        }
    }
}

impl Store for SledStore {
    fn level(&self) -> Level {
        self.level
    }

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        if let Err((Job::Claim { done, .. }, error)) = self.hand_in(Job::Claim { slot, expected, done }) {
            done(Err(error));
        }
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        if let Some(loaded) = self.load_here(&load) {
            return done(loaded);
        }
        let refused = match &*self.doors.read() {
            None => Err((done, closed())),
            Some(doors) => doors.loads.try_send((load, done)).map_err(|error| match error {
                TrySendError::Full((_, done)) => (done, Error::Busy("the store's queue of loads")),
                TrySendError::Disconnected((_, done)) => (done, closed()),
            }),
        };
        if let Err((done, error)) = refused {
            done(Err(error));
        }
    }

    fn load_here(&self, load: &Load) -> Option<Result<Loaded, Error>> {
        self.pace.is_quick().then(|| read_one(&self.disk, &self.shared, &self.pace, load))
    }

    fn barrier(&self, done: Done<()>) {
        if let Err((Job::Barrier { done }, error)) = self.hand_in(Job::Barrier { done }) {
            done(Err(error));
        }
    }

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        self.read(Read::Scan { scan, done });
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        match self.hand_in(Job::Commit(commit)) {
            Err((Job::Commit(commit), why)) => Err(Refused::new(commit, why)),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn put_blob(&self, value: Vec<u8>, done: Done<[u8; 16]>) {
        if value.len() > limits::BLOB_BYTES_MAX {
            return done(Err(Error::TooBig { what: "blob", actual: value.len(), max: limits::BLOB_BYTES_MAX }));
        }
        let id = uuid::Uuid::now_v7().into_bytes();
        self.shared.unanswered.lock().insert(id);
        if let Err((Job::Blob { done, .. }, error)) = self.hand_in(Job::Blob { id, value, done }) {
            self.shared.unanswered.lock().remove(&id);
            done(Err(error));
        }
    }

    fn get_blob(&self, id: [u8; 16], done: Done<Option<Vec<u8>>>) {
        self.read(Read::Blob { id, done });
    }

    fn sweep_blobs(&self, keep: Vec<[u8; 16]>, done: Done<u64>) {
        let keep: HashSet<_> = keep.into_iter().chain(self.shared.unanswered.lock().iter().copied()).collect();
        if let Err((Job::Sweep { done, .. }, error)) = self.hand_in(Job::Sweep { keep, done }) {
            done(Err(error));
        }
    }

    fn put_item(&self, item: Item, done: Done<()>) {
        if let Err((Job::Item { done, .. }, error)) = self.hand_in(Job::Item { item, done }) {
            done(Err(error));
        }
    }

    fn stats(&self) -> Stats {
        let waiting = self.doors.read().as_ref().map_or(0, |doors| doors.jobs.len());
        Stats {
            bytes: self.disk.bytes(),
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
            commits: self.shared.commits.load(Ordering::Relaxed),
            flushes: self.shared.flushes.load(Ordering::Relaxed),
            flush_longest: Duration::from_micros(self.shared.flush_longest_us.load(Ordering::Relaxed)),
            shared: None,
        }
    }

    fn failed(&self) -> Option<Arc<str>> {
        self.shared.failed.get().cloned()
    }

    fn close(&self, done: Done<()>) {
        // Without a sender both threads finish what they have taken and end.
        drop(self.doors.write().take());
        self.shared.when_over(done);
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        drop(self.doors.write().take());
        for thread in self.threads.lock().drain(..) {
            // The last owner may be a completion that runs on one of the threads.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn sled_keeps_the_contract_at_every_level() {
        for level in [Level::Buffered, Level::Flushed, Level::Fsync] {
            let directories = Mutex::new(Vec::new());
            conformance::run(&|| {
                let directory = tempfile::tempdir().unwrap();
                let store = SledStore::open(directory.path(), Options { level, ..Options::default() }).unwrap();
                directories.lock().push(directory);
                Arc::new(store)
            });
        }
    }
}
