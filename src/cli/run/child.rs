//! The child: started, its output passed on, ended in good order or at once.

use std::{ffi::OsString, io, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    process::{Child as Process, Command},
    task::JoinHandle,
};

use super::{environment::REMOVED, signal::Signal};
use crate::cli::error::Error;

/// What stands before each line of its output, as with `dapr run`.
const PREFIX: &[u8] = b"== APP == ";
/// How long its output is waited for once it has ended: what it started may hold on to that.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running service.
pub(super) struct Child {
    process: Process,
    id: u32,
    output: [JoinHandle<()>; 2],
}

impl Child {
    /// Starts a command in a process group of its own: Ctrl-C is for us, and we pass it on once.
    /// With `aside` all of its output goes to standard error.
    pub(super) fn start(command: &[OsString], variables: &[(&str, String)], aside: bool) -> Result<Self, Error> {
        let (program, args) =
            command.split_first().ok_or_else(|| Error::Usage("there is no command to run".to_owned()))?;
        let mut child = Command::new(program);
        child
            .args(args)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in REMOVED {
            child.env_remove(name);
        }
        #[cfg(unix)]
        child.process_group(0);
        let mut process = child.spawn().map_err(Error::io(format!("'{}' cannot be started", program.display())))?;
        let id = process.id().unwrap_or_default();
        let errors = process.stderr.take();
        let errors = tokio::spawn(async move { pass_on(errors, tokio::io::stderr()).await });
        let lines = process.stdout.take();
        let lines = tokio::spawn(async move {
            if aside { pass_on(lines, tokio::io::stderr()).await } else { pass_on(lines, tokio::io::stdout()).await }
        });
        Ok(Self { process, id, output: [lines, errors] })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Waits until it has ended by itself; answers with its exit code. May be dropped and asked again.
    pub(super) async fn ended(&mut self) -> io::Result<u8> {
        self.process.wait().await.map(code)
    }

    /// Passes on what is left of its output once it has ended.
    pub(super) async fn last_words(self) {
        let all_said = async {
            for output in self.output {
                // It was cancelled, or has a bug of its own: there is nothing more to pass on.
                drop(output.await);
            }
        };
        drop(tokio::time::timeout(LAST_WORDS, all_said).await);
    }

    /// Asks it to end, and kills it if it has not after `grace`, or once `hurry` is over.
    pub(super) async fn end(&mut self, ask: Signal, grace: Duration, hurry: impl Future) -> io::Result<u8> {
        if ask.send_to_group(self.id).is_ok() {
            tokio::select! {
                ended = self.ended() => return ended,
                () = tokio::time::sleep(grace) => {}
                _ = hurry => {}
            }
        }
        // It may have ended in this moment; waiting tells.
        if Signal::Kill.send_to_group(self.id).is_err() {
            drop(self.process.start_kill());
        }
        self.ended().await
    }
}

/// The exit code as a shell tells it.
#[cfg(unix)]
fn code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(not(unix))]
fn code(status: std::process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Passes lines on as they come, each after the prefix. If nobody takes them they are read all the same, so that the
/// child never waits for us.
async fn pass_on(from: Option<impl AsyncRead + Unpin>, mut into: impl AsyncWrite + Unpin) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line_is_open = false;
    let mut is_taken = true;
    while let Ok(Some(text)) = next(&mut from, &mut line_is_open).await {
        if is_taken {
            is_taken = into.write_all(&text).await.is_ok() && into.flush().await.is_ok();
        }
    }
    if line_is_open && is_taken {
        drop(into.write_all(b"\n").await);
        drop(into.flush().await);
    }
}

/// What is there to read, with its prefixes; `None` at the end.
async fn next(from: &mut (impl AsyncBufRead + Unpin), line_is_open: &mut bool) -> io::Result<Option<Vec<u8>>> {
    let bytes = from.fill_buf().await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut text = Vec::with_capacity(bytes.len() + PREFIX.len());
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !*line_is_open {
            text.extend_from_slice(PREFIX);
        }
        text.extend_from_slice(piece);
        *line_is_open = !piece.ends_with(b"\n");
    }
    let read = bytes.len();
    from.consume(read);
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_line_has_its_prefix_however_it_comes() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut said = Vec::new();
        let said_it = async {
            for piece in [&b"one\ntw"[..], b"o\n\n", b"open"] {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(theirs);
        };
        tokio::join!(said_it, pass_on(Some(ours), &mut said));
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, "== APP == one\n== APP == two\n== APP == \n== APP == open\n");
    }
}
