//! Signals: those that end this process are taken, and sent on to the child.

use std::io;

/// A signal by its name, and its number where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Reload, by convention.
    Hup,
    /// Ctrl-C.
    Int,
    /// End with a core dump, by convention.
    Quit,
    /// For the service's own use.
    Usr1,
    /// For the service's own use.
    Usr2,
    /// End in good order.
    Term,
    /// End at once.
    Kill,
}

impl Signal {
    /// Those that a command may be mapped to.
    const NAMED: [(&'static str, Self); 7] = [
        ("HUP", Self::Hup),
        ("INT", Self::Int),
        ("QUIT", Self::Quit),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("TERM", Self::Term),
        ("KILL", Self::Kill),
    ];

    /// Parses `HUP` or `SIGHUP`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let found = Self::NAMED.iter().find(|(known, _)| *known == name);
        found.map(|(_, signal)| *signal).ok_or_else(|| {
            let known = Self::NAMED.map(|(known, _)| known).join(", ");
            format!("'{text}' is no signal that can be sent; these are: {known}")
        })
    }

    /// How a shell numbers the end by this signal: 128 and its number.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Hup => 129,
            Self::Int => 130,
            Self::Quit => 131,
            Self::Kill => 137,
            Self::Usr1 => 138,
            Self::Usr2 => 140,
            Self::Term => 143,
        }
    }

    #[cfg(unix)]
    fn raw(self) -> rustix::process::Signal {
        match self {
            Self::Hup => rustix::process::Signal::HUP,
            Self::Int => rustix::process::Signal::INT,
            Self::Quit => rustix::process::Signal::QUIT,
            Self::Usr1 => rustix::process::Signal::USR1,
            Self::Usr2 => rustix::process::Signal::USR2,
            Self::Term => rustix::process::Signal::TERM,
            Self::Kill => rustix::process::Signal::KILL,
        }
    }

    /// Sends it to one process.
    #[cfg(unix)]
    pub(super) fn send(self, process: u32) -> io::Result<()> {
        Ok(rustix::process::kill_process(pid(process)?, self.raw())?)
    }

    /// Sends it to the process and all that it started and that did not leave its group.
    #[cfg(unix)]
    pub(super) fn send_to_group(self, leader: u32) -> io::Result<()> {
        Ok(rustix::process::kill_process_group(pid(leader)?, self.raw())?)
    }

    /// Cannot be done here.
    #[cfg(not(unix))]
    pub(super) fn send(self, _process: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Cannot be done here.
    #[cfg(not(unix))]
    pub(super) fn send_to_group(self, _leader: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(unix)]
fn pid(process: u32) -> io::Result<rustix::process::Pid> {
    let raw = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    raw.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The signals that ask this process to end.
pub(super) struct Asked {
    #[cfg(unix)]
    streams: [(Signal, tokio::signal::unix::Signal); 3],
}

impl Asked {
    /// From now on they no longer end the process by themselves.
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = [
            (Signal::Int, signal(SignalKind::interrupt())?),
            (Signal::Term, signal(SignalKind::terminate())?),
            // The terminal is closed: nothing must be left behind.
            (Signal::Hup, signal(SignalKind::hangup())?),
        ];
        Ok(Self { streams })
    }

    /// The next of them.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> Signal {
        let [(int, interrupt), (term, terminate), (hup, hangup)] = &mut self.streams;
        tokio::select! {
            _ = interrupt.recv() => *int,
            _ = terminate.recv() => *term,
            _ = hangup.recv() => *hup,
        }
    }

    /// From now on they no longer end the process by themselves.
    #[cfg(not(unix))]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next of them.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Int
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_with_or_without_sig_in_any_case() {
        assert_eq!(Signal::parse("HUP"), Ok(Signal::Hup));
        assert_eq!(Signal::parse("sigusr1"), Ok(Signal::Usr1));
        let error = Signal::parse("STOP").unwrap_err();
        assert!(error.contains("HUP, INT"), "{error}");
    }
}
