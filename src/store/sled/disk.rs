//! sled as the committer sees it: opened with care, flushed and, for `Fsync`, synced by a handle of our own.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{Options, mark};
use crate::store::{
    Error, Level,
    committer::{Disk, Write},
    keyspace::{self, Bytes},
};

/// How often and how far apart an open is tried while another process holds the directory: 5 s.
const ATTEMPTS: u32 = 50;
const ATTEMPT_EVERY: Duration = Duration::from_millis(100);
/// Two changes of a folder that are farther apart than this have different times, on every file system in use.
const FOLDER_TIME_STEP: Duration = Duration::from_secs(2);
/// How often sled flushes at `Buffered`, where the committer does not.
const BUFFERED_FLUSH_MS: u64 = 500;

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("'{}' is in use by another process; stop it, or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("'{}' cannot be used as a store: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Written by another release.
    #[error("'{}' has store format {found}, this build reads {supported}; export it with the release that wrote it", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// In the store.
        found: u32,
        /// Readable.
        supported: u32,
    },
    /// A sled database of something else.
    #[error("'{}' holds a sled database that is no twin store; choose another directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// sled cannot recover it.
    #[error("'{}' is damaged: {detail}; it was left as it is: restore a backup, or import an export into an empty directory", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What sled says.
        detail: String,
    },
    /// It lost what was written last.
    #[error(
        "'{}' was closed in good order and lacks what was written last: its file was damaged since; \
         restore a backup, or keep a copy and remove '{}' to go on with what is left",
        path.display(), mark::file(path).display()
    )]
    Lost {
        /// The directory.
        path: PathBuf,
    },
    /// No thread could be started.
    #[error("the store's thread could not be started: {0}")]
    Thread(String),
}

/// A database and the handles it is synced by.
pub(super) struct SledDisk {
    db: sled::Db,
    path: PathBuf,
    file: DatabaseFile,
    /// Where sled puts tree nodes above 128 KiB, in files of their own that it never syncs.
    large: PathBuf,
    synced: Mutex<Synced>,
    level: Level,
}

/// sled's file, by a handle of our own.
struct DatabaseFile {
    file: File,
    /// Called before each sync.
    #[cfg(test)]
    watch: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl DatabaseFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::options().read(true).write(true).open(path)?,
            #[cfg(test)]
            watch: Mutex::default(),
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(watch) = &mut *self.watch.lock() {
            watch();
        }
        self.file.sync_data()
    }
}

/// What is known of the files of large nodes.
struct Synced {
    /// The newest that was synced; their names are growing numbers.
    newest: i64,
    /// When their folder was changed last, if a change after it was looked at cannot have the same time.
    looked_at: Option<SystemTime>,
}

impl SledDisk {
    pub(super) fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let directory = |source| OpenError::Directory { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(directory)?;
        let db = open_sled(path, options)?;
        check_format(path, &db)?;
        match mark::is_whole(path, &db) {
            Ok(true) => mark::remove(path).map_err(directory)?,
            Ok(false) => return Err(OpenError::Lost { path: path.to_owned() }),
            Err(mark::Error::File(source)) => return Err(directory(source)),
            Err(mark::Error::Database(error)) => {
                return Err(OpenError::Damaged { path: path.to_owned(), detail: error.to_string() });
            }
        }
        let file = DatabaseFile::open(&path.join("db")).map_err(directory)?;
        let disk = Self {
            db,
            file,
            path: path.to_owned(),
            large: path.join("blobs"),
            synced: Mutex::new(Synced { newest: -1, looked_at: None }),
            level: options.level,
        };
        disk.finish().map_err(|cause| directory(io::Error::other(cause)))?;
        // A new file is safe only when the directories that name it are.
        for directory_of in [Some(path), path.parent().filter(|parent| !parent.as_os_str().is_empty())] {
            if let Some(handle) = directory_of.and_then(|path| File::open(path).ok()) {
                handle.sync_all().map_err(directory)?;
            }
        }
        Ok(disk)
    }

    /// Reads; sled's errors and panics come back as ours.
    pub(super) fn guarded<T>(&self, read: impl FnOnce(&sled::Tree) -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(|| read(&self.db)))
            .unwrap_or_else(|_| Err(Error::Unavailable("the database panicked while reading".into())))
    }

    /// Syncs the large nodes that are new, then the directory that names them.
    #[expect(clippy::disallowed_methods, reason = "compared with times of the same clock, which the file system took")]
    fn sync_large(&self) -> io::Result<()> {
        let mut synced = self.synced.lock();
        let changed_at = std::fs::metadata(&self.large)?.modified()?;
        if synced.looked_at == Some(changed_at) {
            return Ok(());
        }
        let looked_at = SystemTime::now();
        let mut newest = synced.newest;
        for entry in std::fs::read_dir(&self.large)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if number > synced.newest {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_data()?,
                    // sled removes a node that a newer one replaced.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                newest = newest.max(number);
            }
        }
        if newest > synced.newest {
            File::open(&self.large)?.sync_all()?;
            synced.newest = newest;
        }
        let settled = looked_at.duration_since(changed_at).is_ok_and(|age| age > FOLDER_TIME_STEP);
        synced.looked_at = settled.then_some(changed_at);
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or_default()
    }
}

fn open_sled(path: &Path, options: Options) -> Result<sled::Db, OpenError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms((options.level == Level::Buffered).then_some(BUFFERED_FLUSH_MS));
    for attempt in 1.. {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let error = match opened {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => error,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let detail = text.unwrap_or_else(|| "sled panicked".to_owned());
                return Err(OpenError::Damaged { path: path.to_owned(), detail });
            }
        };
        match error {
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                if attempt == ATTEMPTS {
                    break;
                }
                pause();
            }
            sled::Error::Io(source) => return Err(OpenError::Directory { path: path.to_owned(), source }),
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => {
                return Err(OpenError::Damaged { path: path.to_owned(), detail: error.to_string() });
            }
        }
    }
    Err(OpenError::InUse { path: path.to_owned() })
}

#[expect(clippy::disallowed_methods, reason = "opening a store blocks, and says so")]
fn pause() {
    std::thread::sleep(ATTEMPT_EVERY);
}

fn check_format(path: &Path, db: &sled::Db) -> Result<(), OpenError> {
    let damaged = |error: &sled::Error| OpenError::Damaged { path: path.to_owned(), detail: error.to_string() };
    let found = db.get(keyspace::FORMAT_KEY).map_err(|error| damaged(&error))?;
    match found.map(|bytes| bytes.as_ref().try_into().map(u32::from_le_bytes)) {
        None if db.is_empty() => {
            db.insert(keyspace::FORMAT_KEY, &keyspace::FORMAT.to_le_bytes()).map_err(|error| damaged(&error))?;
            Ok(())
        }
        Some(Ok(keyspace::FORMAT)) => Ok(()),
        Some(Ok(found)) => Err(OpenError::Format { path: path.to_owned(), found, supported: keyspace::FORMAT }),
        None | Some(Err(_)) => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn words(error: sled::Error) -> String {
    error.to_string()
}

impl Disk for SledDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.db.get(key).map_err(words)?.map(|value| value.to_vec()))
    }

    fn seek(&self, from: &[u8]) -> Result<Option<Bytes>, String> {
        let next = self.db.range(from..).keys().next().transpose().map_err(words)?;
        Ok(next.map(|key| Bytes::from_slice(&key)))
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.db.insert(key, value).map_err(words).map(drop)
    }

    fn batch(&self, writes: &mut Vec<Write>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes.drain(..) {
            match value {
                Some(value) => batch.insert(key.as_slice(), value),
                None => batch.remove(key.as_slice()),
            }
        }
        self.db.apply_batch(batch).map_err(words)
    }

    fn sync(&self) -> Result<(), String> {
        match self.level {
            Level::Buffered => Ok(()),
            Level::Flushed => self.db.flush().map_err(words).map(drop),
            Level::Fsync => self.finish(),
        }
    }

    fn finish(&self) -> Result<(), String> {
        self.db.flush().map_err(words)?;
        // On Linux sled's flush hands the bytes to the kernel and leaves them there.
        self.sync_large().and_then(|()| self.file.sync_data()).map_err(|error| error.to_string())
    }

    fn close(&self) -> Result<(), String> {
        mark::set(&self.path, &self.db, || self.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn at_fsync_and_at_the_end_the_file_is_synced_after_it_has_the_bytes() {
        const VALUE: &[u8] = b"a value that lies in the file as it is";
        for (level, expected) in [(Level::Buffered, 0), (Level::Flushed, 0), (Level::Fsync, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let disk = SledDisk::open(directory.path(), Options { level, ..Options::default() }).unwrap();
            let (file, syncs) = (directory.path().join("db"), Arc::new(Mutex::new(0)));
            let counted = syncs.clone();
            *disk.file.watch.lock() = Some(Box::new(move || {
                let bytes = std::fs::read(&file).unwrap();
                assert!(
                    bytes.windows(VALUE.len()).any(|bytes| bytes == VALUE),
                    "{level:?}: synced before it was written"
                );
                *counted.lock() += 1;
            }));
            disk.insert(b"key", VALUE).unwrap();
            disk.sync().unwrap();
            assert_eq!(*syncs.lock(), expected, "{level:?}");
            disk.finish().unwrap();
            assert_eq!(*syncs.lock(), expected + 1, "{level:?}: whatever the level");
        }
    }

    #[test]
    fn a_large_node_is_noticed_however_long_there_was_none() {
        let directory = tempfile::tempdir().unwrap();
        let disk = SledDisk::open(directory.path(), Options::default()).unwrap();
        let folder = File::open(&disk.large).unwrap();
        for number in 0..3 {
            std::fs::write(disk.large.join(number.to_string()), "a node").unwrap();
            if number > 0 {
                // As if it had been long ago, so that the next look is the last until something changes.
                folder.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number)).unwrap();
            }
            for _ in 0..2 {
                disk.sync_large().unwrap();
                assert_eq!(disk.synced.lock().newest, i64::try_from(number).unwrap());
            }
            assert_eq!(
                disk.synced.lock().looked_at.is_some(),
                number > 0,
                "a folder just changed may change again unseen"
            );
        }
    }
}
