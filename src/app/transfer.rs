//! Everything of a stopped node as one file, and back into a fresh data folder.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::mpsc::channel,
};

use crate::{
    config::Config,
    store::{
        Store as _,
        sled::{OpenError, Options, SledStore},
        transfer::{self, Progress},
    },
};

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
    /// The transfer itself.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
}

/// Writes everything a stopped node keeps to a new file. Blocks.
///
/// # Errors
/// Whatever was written by then is removed again.
pub fn export(config: &Config, file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Progress, Error> {
    let folder = config.data_dir.join(super::STORE_FOLDER);
    if !folder.is_dir() {
        return Err(Error::NoStore(config.data_dir.clone()));
    }
    let failed = |source| Error::File { file: file.to_owned(), source };
    let store = open(config, folder)?;
    let out = OpenOptions::new().write(true).create_new(true).open(file).map_err(failed)?;
    let mut out = BufWriter::new(out);
    let exported = transfer::export(&store, &mut out, progress).map_err(Error::from).and_then(|total| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed)?;
        Ok(total)
    });
    close(&store);
    if exported.is_err()
        && let Err(error) = std::fs::remove_file(file)
    {
        tracing::warn!(%error, file = %file.display(), "what was written of the export could not be removed");
    }
    exported
}

/// Reads such a file into a data folder that holds no twins yet. Blocks.
pub fn import(config: &Config, file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Progress, Error> {
    let failed = |source| Error::File { file: file.to_owned(), source };
    let mut input = BufReader::new(File::open(file).map_err(failed)?);
    let folder = config.data_dir.join(super::STORE_FOLDER);
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|source| Error::File { file: config.data_dir.clone(), source })?;
    let store = open(config, folder)?;
    let imported = transfer::import(&store, &mut input, progress);
    close(&store);
    Ok(imported?)
}

fn open(config: &Config, folder: PathBuf) -> Result<SledStore, Error> {
    let options =
        Options { level: config.store.level, cache_bytes: config.store.cache_mib << 20, ..Options::default() };
    SledStore::open(&folder, options).map_err(|source| Error::Store { folder, source })
}

/// Waits until everything is durable and the store's threads have ended.
fn close(store: &SledStore) {
    let (send, closed) = channel();
    store.close(Box::new(move |result| drop(send.send(result))));
    if let Ok(Err(error)) = closed.recv() {
        tracing::warn!(%error, "the store did not close in good order");
    }
}
