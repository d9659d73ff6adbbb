//! Values that are handed over as they are, and never on a command line: from standard input, from a file, or typed.

use std::{
    io::{IsTerminal as _, Read},
    path::{Path, PathBuf},
};

use clap::Args;

use super::error::Error;

/// Most that is read, in bytes; nodes take less.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Where a value comes from.
#[derive(Clone, Debug, Args)]
pub(super) struct Source {
    /// Take the value from this file [default: standard input]
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Keep a line end at the end of the value
    #[arg(long)]
    exact: bool,
}

impl Source {
    /// Reads the value; whoever sits at a terminal is asked for it, and nothing shows.
    pub(super) fn read(&self, what: &str) -> Result<Vec<u8>, Error> {
        let mut value = match &self.from_file {
            Some(file) => from_file(file)?,
            None if std::io::stdin().is_terminal() => typed(what)?,
            None => whole(&mut std::io::stdin()).map_err(Error::io("standard input"))?,
        };
        if !self.exact {
            without_line_end(&mut value);
        }
        if value.is_empty() {
            return Err(Error::Usage(format!("{what} is empty; give it on standard input, or with --from-file FILE")));
        }
        Ok(value)
    }
}

/// A text on standard input.
pub(super) fn text() -> Result<String, Error> {
    let text = std::io::read_to_string(std::io::stdin().take(BYTES_MAX));
    text.map_err(Error::io("standard input"))
}

/// A file as it is.
pub(super) fn from_file(file: &Path) -> Result<Vec<u8>, Error> {
    let read = std::fs::File::open(file).and_then(|mut file| whole(&mut file));
    read.map_err(Error::io(format!("'{}'", file.display())))
}

fn typed(what: &str) -> Result<Vec<u8>, Error> {
    let term = console::Term::stderr();
    let asked = term.write_str(&format!("{what}, which does not show: ")).and_then(|()| term.read_secure_line());
    asked.map(String::into_bytes).map_err(Error::io("the terminal"))
}

fn whole(from: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let read = from.take(BYTES_MAX + 1).read_to_end(&mut value)?;
    if u64::try_from(read).is_ok_and(|read| read > BYTES_MAX) {
        return Err(std::io::Error::other(format!("it is larger than {BYTES_MAX} bytes")));
    }
    Ok(value)
}

/// `echo` and editors end what they write with a line end that nobody means.
fn without_line_end(value: &mut Vec<u8>) {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_taken_off_the_end() {
        for (given, left) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("a\r", "a\r"), ("\n", "")] {
            let mut value = given.as_bytes().to_vec();
            without_line_end(&mut value);
            assert_eq!(value, left.as_bytes(), "{given:?}");
        }
    }
}
