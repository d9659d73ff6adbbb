//! Secrets in files: the first operator key, the key that signs tokens, the key that secrets are sealed with.

use std::{
    io::{self, Write as _},
    path::Path,
};

use super::{Error, TOKEN_KEY_FILE};
use crate::{
    capability::secrets::seal::NodeKey,
    config::{Config, StoreKind},
    token::{InvalidRootKey, RootKey},
};

/// Where the key that secrets are sealed with lies, in the data folder.
const SECRETS_KEY_FILE: &str = "secrets.key";
/// Longest file with a root key, in bytes.
const FILE_BYTES_MAX: usize = 1024;

/// Why a file is no root key.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] io::Error),
    /// Something else lies in it.
    #[error(transparent)]
    Content(#[from] InvalidRootKey),
}

/// The key that signs tokens, and whether it was made just now.
pub(super) fn root_key(config: &Config) -> Result<(RootKey, bool), Error> {
    if let Some(file) = &config.token_key_file {
        let read = read(file).map_err(|source| Error::TokenKey { file: file.clone(), source });
        return read.map(|root| (root, false));
    }
    match config.store.kind {
        StoreKind::Memory => Ok((RootKey::generate(), true)),
        StoreKind::Sled => {
            let file = config.data_dir.join(TOKEN_KEY_FILE);
            read_or_make(&file).map_err(|source| Error::TokenKey { file, source })
        }
    }
}

fn read_or_make(file: &Path) -> Result<(RootKey, bool), Unusable> {
    match read(file) {
        Err(Unusable::File(error)) if error.kind() == io::ErrorKind::NotFound => {
            let root = RootKey::generate();
            write(file, &root.to_text())?;
            Ok((root, true))
        }
        read => Ok((read?, false)),
    }
}

fn read(file: &Path) -> Result<RootKey, Unusable> {
    let text = std::fs::read(file)?;
    let text = std::str::from_utf8(&text).ok().filter(|text| text.len() <= FILE_BYTES_MAX);
    Ok(RootKey::parse(text.ok_or(InvalidRootKey)?)?)
}

/// The key that wraps what secrets are sealed with: as configured, or from its file. One that is named must be there; the
/// one in the data folder is made.
pub(super) fn node_key(config: &Config) -> Result<NodeKey, Error> {
    let unusable = |place: &str| {
        Error::SecretsKey(format!(
            "{place} does not hold 64 hexadecimal digits; restore the key that secrets were sealed with"
        ))
    };
    if !config.secrets_key.0.is_empty() {
        return NodeKey::parse(&config.secrets_key.0).ok_or_else(|| unusable("secrets_key"));
    }
    let stated = &config.secrets_key_file;
    if stated.as_os_str().is_empty() && config.store.kind == StoreKind::Memory {
        return Ok(NodeKey::draw().0);
    }
    let file = if stated.as_os_str().is_empty() { config.data_dir.join(SECRETS_KEY_FILE) } else { stated.clone() };
    let failed = |source: std::io::Error| Error::SecretsKey(format!("'{}' cannot be used: {source}", file.display()));
    match std::fs::read_to_string(&file) {
        Ok(text) => NodeKey::parse(&text).ok_or_else(|| unusable(&format!("'{}'", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && stated.as_os_str().is_empty() => {
            let (key, digits) = NodeKey::draw();
            write(&file, &digits).map_err(failed)?;
            tracing::info!(file = %file.display(), "the key that secrets are sealed with was made; keep a copy of it elsewhere");
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The folder of a file; of a bare name that is the one at hand.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a line where only the owner of the file reads it: whole, or not at all.
pub(super) fn write(file: &Path, line: &str) -> io::Result<()> {
    let folder = folder_of(file);
    std::fs::create_dir_all(folder)?;
    let fresh = file.with_extension("fresh");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut writer = options.open(&fresh)?;
    writeln!(writer, "{line}")?;
    writer.sync_all()?;
    std::fs::rename(&fresh, file)?;
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        let (made, is_new) = root_key(&config).unwrap();
        let (read, is_new_again) = root_key(&config).unwrap();
        assert_eq!((made.to_text(), is_new, is_new_again), (read.to_text(), true, false));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(config.data_dir.join(TOKEN_KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_with_the_key_of_secrets_that_is_named_is_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mounted");
        let config = Config { secrets_key_file: file.clone(), ..Config::default() };
        let refused = node_key(&config).err().unwrap().to_string();
        assert!(refused.contains("mounted") && !file.exists(), "{refused}");
        write(&file, &NodeKey::draw().1).unwrap();
        assert!(node_key(&config).is_ok());
        let own = Config { data_dir: folder.path().join("data"), ..Config::default() };
        assert!(node_key(&own).is_ok() && folder.path().join("data").join(SECRETS_KEY_FILE).exists());
    }

    #[test]
    fn a_bare_name_is_a_file_in_the_folder_at_hand() {
        assert_eq!(folder_of(Path::new("operator.key")), Path::new("."));
        assert_eq!(folder_of(Path::new("keys/operator.key")), Path::new("keys"));
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_hold_a_root_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mounted");
        let config = Config {
            token_key_file: Some(file.clone()),
            store: crate::config::StoreConfig { kind: StoreKind::Memory, ..crate::config::StoreConfig::default() },
            ..Config::default()
        };
        assert!(matches!(root_key(&config), Err(Error::TokenKey { source: Unusable::File(_), .. })));
        std::fs::write(&file, "no key\n").unwrap();
        assert!(matches!(root_key(&config), Err(Error::TokenKey { source: Unusable::Content(_), .. })));
        let root = RootKey::generate().to_text();
        write(&file, &root).unwrap();
        let (read, is_new) = root_key(&config).unwrap();
        assert_eq!((read.to_text(), is_new), (root, false));
    }
}
