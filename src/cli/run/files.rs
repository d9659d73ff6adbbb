//! The folders that `--resources-path` names, and what was understood of them.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    RunArgs,
    resources::{self, Resources},
};
use crate::{
    cli::{error::Error, print},
    model::ServiceId,
};

/// Files read at most.
const FILES_MAX: usize = 256;
/// Largest of them, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads what the command line names for a service; `None` if it names nothing.
pub(super) fn read(args: &RunArgs, service: &ServiceId) -> Result<Option<Resources>, Error> {
    let mut files = Vec::new();
    for path in &args.resources_path {
        add(path, &mut files)?;
    }
    files.extend(args.config.clone());
    if args.resources_path.is_empty() && args.config.is_none() {
        return Ok(None);
    }
    if files.len() > FILES_MAX {
        return Err(Error::Usage(format!("--resources-path names more than {FILES_MAX} files")));
    }
    let mut found = Resources::default();
    for file in files {
        let name = file.display().to_string();
        let text = text(&file).map_err(Error::io(name.clone()))?;
        resources::read(&name, &text, service.name(), &mut found).map_err(|error| Error::Usage(error.to_string()))?;
    }
    resources::choose(&mut found, args.map_components).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(Some(found))
}

/// A file, or the files of a folder that are YAML, in the order of their names.
fn add(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let wrong = || Error::io(format!("--resources-path '{}'", path.display()));
    if fs::metadata(path).map_err(wrong())?.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(wrong())? {
        let file = entry.map_err(wrong())?.path();
        let is_yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    files.extend(found);
    Ok(())
}

fn text(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > FILE_BYTES_MAX) {
        return Err(std::io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Tells what becomes of a resource.
pub(super) fn say(text: &str) {
    print::aside(&format!("resources: {}", print::plain(text)));
}
