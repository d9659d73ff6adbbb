//! Notices a database that lost what was written last.
//!
//! sled takes damage in the part of its log that was written last for a write that was cut off, and goes on without what
//! lay behind it. So the last thing a store writes is a number, and a file beside the database says the same one. A
//! store that was killed has no such file, and nothing is claimed of it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Holds the number in the database.
const KEY: &[u8] = b"m/closed";
/// Holds it beside the database.
const FILE: &str = "closed";

/// The file that says how the database was closed.
pub(super) fn file(path: &Path) -> PathBuf {
    path.join(FILE)
}

/// Whether the database has everything that it had when it was closed; so has one that was not closed, for all we know.
pub(super) fn is_whole(path: &Path, db: &sled::Db) -> Result<bool, Error> {
    match fs::read(file(path)) {
        Ok(expected) => Ok(db.get(KEY)?.is_some_and(|found| found == expected)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Takes the mark away: before anything is written.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(file(path)) {
        Ok(()) => File::open(path)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Marks the database as closed. `sync` makes the database safe; the file is there only after that.
pub(super) fn set(path: &Path, db: &sled::Db, sync: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let number = uuid::Uuid::now_v7().into_bytes();
    db.insert(KEY, &number).map_err(|error| error.to_string())?;
    sync()?;
    let write = || -> io::Result<()> {
        let beside = path.join(format!("{FILE}.new"));
        fs::write(&beside, number)?;
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, file(path))?;
        File::open(path)?.sync_all()
    };
    if let Err(error) = write() {
        // Everything is safe; only damage from now on would not be noticed.
        tracing::warn!(%error, path = %file(path).display(), "the store was closed and could not be marked as closed");
    }
    Ok(())
}

/// The database or the file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Database(#[from] sled::Error),
    #[error(transparent)]
    File(#[from] io::Error),
}
