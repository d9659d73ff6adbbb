//! Keys that lie in files which only their owner reads.

use std::{io::Write as _, path::Path};

use super::Error;
use crate::{
    capability::secrets::seal::NodeKey,
    config::{Config, StoreKind},
};

/// Where the key that secrets are sealed with lies, in the data folder.
const SECRETS_KEY_FILE: &str = "secrets.key";

/// Writes a line to a file that only the owner of the folder reads, and syncs it.
pub(super) fn write(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut opened = options.open(file)?;
    writeln!(opened, "{line}")?;
    opened.sync_all()
}

/// The key that wraps what secrets are sealed with: as configured, or from its file, which is made if it is not there.
pub(super) fn secrets(config: &Config) -> Result<NodeKey, Error> {
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (key, digits) = NodeKey::draw();
            write(&file, &digits).map_err(failed)?;
            tracing::info!(file = %file.display(), "the key that secrets are sealed with was made; keep a copy of it elsewhere");
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}
