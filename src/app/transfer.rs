//! Everything of a stopped node as one file, and back into a fresh data folder.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::mpsc::channel,
};

use crate::{
    config::Config,
    store::{
        self, Store,
        sled::{OpenError, Options, SledStore},
        transfer::{self, Progress},
    },
};

/// Where an import writes, in the data folder, until all of it is durable.
const IMPORT_FOLDER: &str = "store.importing";

/// An import into a data folder has not ended.
#[derive(Debug, thiserror::Error)]
#[error(
    "an import into '{}' is under way or was cut off, and only a part of it is there; \
     run `twin import FILE` again, which starts it anew, or remove '{IMPORT_FOLDER}' in it to begin empty",
    .0.display()
)]
pub struct Unfinished(PathBuf);

/// The folder of the store, unless it is still to come out of an import.
pub(super) fn store_folder(data_dir: &Path) -> Result<PathBuf, Unfinished> {
    let folder = data_dir.join(super::STORE_FOLDER);
    if !folder.exists() && data_dir.join(IMPORT_FOLDER).exists() {
        return Err(Unfinished(data_dir.to_owned()));
    }
    Ok(folder)
}

/// Why an export or import did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("the file '{}' cannot be used: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing to export.
    #[error("there is no store in '{}'; name the node's data folder with --data-dir", .0.display())]
    NoStore(PathBuf),
    /// The store.
    #[error("the store in '{}' cannot be opened; the node must be stopped first: {source}", folder.display())]
    Store {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The cluster's store.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Cluster(#[from] Box<super::Error>),
    /// An import was cut off.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
    /// The transfer itself.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
}

/// Writes everything a stopped node keeps, or a cluster whose nodes may run, to a new file. Blocks.
///
/// # Errors
/// Whatever was written by then is removed again.
pub fn export(config: &Config, file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Progress, Error> {
    #[cfg(feature = "cluster")]
    if !config.cluster.servers.is_empty() {
        return export_from(&super::cluster::open_store(config)?, file, progress);
    }
    let folder = store_folder(&config.data_dir)?;
    if !folder.is_dir() {
        return Err(Error::NoStore(config.data_dir.clone()));
    }
    export_from(&open(config, folder)?, file, progress)
}

fn export_from(store: &dyn Store, file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Progress, Error> {
    let failed = |source| Error::File { file: file.to_owned(), source };
    let out = OpenOptions::new().write(true).create_new(true).open(file).map_err(failed)?;
    let mut out = BufWriter::new(out);
    let exported = transfer::export(store, &mut out, progress).map_err(Error::from).and_then(|total| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed)?;
        Ok(total)
    });
    if let Err(error) = close(store) {
        tracing::warn!(%error, "the store did not close in good order");
    }
    if exported.is_err()
        && let Err(error) = std::fs::remove_file(file)
    {
        tracing::warn!(%error, file = %file.display(), "what was written of the export could not be removed");
    }
    exported
}

/// Reads such a file into a data folder that holds no store yet, or into a cluster that is new. Blocks.
///
/// For a data folder it is written to a folder beside the store's, which gets the store's name when all of it is durable.
/// What an import that was cut off has left there is removed. In a cluster a part stays.
pub fn import(config: &Config, file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Progress, Error> {
    let failed = |source| Error::File { file: file.to_owned(), source };
    let mut input = BufReader::new(File::open(file).map_err(failed)?);
    #[cfg(feature = "cluster")]
    if !config.cluster.servers.is_empty() {
        let store = super::cluster::open_store(config)?;
        let imported = transfer::import(&store, &mut input, progress);
        close(&store).map_err(transfer::Error::from)?;
        return Ok(imported?);
    }
    let folder = config.data_dir.join(super::STORE_FOLDER);
    match std::fs::remove_dir(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => return Err(transfer::Error::NotEmpty.into()),
    }
    let part = config.data_dir.join(IMPORT_FOLDER);
    let unusable =
        |source| Error::Store { folder: part.clone(), source: OpenError::Directory { path: part.clone(), source } };
    if part.exists() {
        // Opened only to see that no other process is at it; it may be damaged in any way.
        if let Err(error @ Error::Store { source: OpenError::InUse { .. }, .. }) = open(config, part.clone()) {
            return Err(error);
        }
        std::fs::remove_dir_all(&part).map_err(unusable)?;
    }
    let was_there = config.data_dir.exists();
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|source| Error::File { file: config.data_dir.clone(), source })?;
    let store = open(config, part.clone())?;
    let imported = transfer::import(&store, &mut input, progress).map_err(Error::from);
    let closed = close(&store).map_err(|error| Error::from(transfer::Error::from(error)));
    drop(store);
    let settled = imported.and_then(|total| {
        closed?;
        std::fs::rename(&part, &folder).map_err(unusable)?;
        Ok(total)
    });
    if settled.is_err()
        && let Err(error) = std::fs::remove_dir_all(&part)
    {
        tracing::warn!(%error, folder = %part.display(), "what was written of the import could not be removed");
    }
    if settled.is_err()
        && !was_there
        && let Err(error) = std::fs::remove_dir(&config.data_dir)
    {
        tracing::warn!(%error, folder = %config.data_dir.display(), "the import's empty folder could not be removed");
    }
    let total = settled?;
    // The new name is safe only when the directory that holds it is.
    if let Ok(handle) = File::open(&config.data_dir) {
        handle.sync_all().map_err(unusable)?;
    }
    Ok(total)
}

fn open(config: &Config, folder: PathBuf) -> Result<SledStore, Error> {
    let options =
        Options { level: config.store.level, cache_bytes: config.store.cache_mib << 20, ..Options::default() };
    SledStore::open(&folder, options).map_err(|source| Error::Store { folder, source })
}

/// Waits until everything is durable and the store's threads have ended.
fn close(store: &dyn Store) -> Result<(), store::Error> {
    let (send, closed) = channel();
    store.close(Box::new(move |result| drop(send.send(result))));
    closed.recv().unwrap_or_else(|_| Err(store::Error::Unavailable("the store ended without an answer".into())))
}
