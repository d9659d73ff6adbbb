//! Open files: as many as the system lets this process have, and no more connections than that.

use crate::server;

/// Files a node needs besides its connections: store, log, listener, those being turned away.
const RESERVED: u64 = 256;

/// Raises this process's limit of open files as far as it may go; answers what it is then, if there is one.
#[cfg(unix)]
pub(super) fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = limit.current, "the limit of open files could not be raised");
            limit.current
        }
    }
}

#[cfg(not(unix))]
pub(super) fn raise() -> Option<u64> {
    None
}

/// Lowers the bound of connections to what the limit of open files leaves for them, and says so.
pub(super) fn fit(config: &mut server::Config, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let room = usize::try_from(limit.saturating_sub(RESERVED).max(1)).unwrap_or(usize::MAX);
    if config.connections_max > room {
        tracing::warn!(
            limit,
            wanted = config.connections_max,
            connections_max = room,
            "the limit of open files leaves room for fewer connections than server.connections_max; raise it (ulimit -n)"
        );
        config.connections_max = room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_files_of_the_node() {
        let bound = |limit| {
            let mut config = server::Config { connections_max: 16_384, ..server::Config::default() };
            fit(&mut config, limit);
            config.connections_max
        };
        assert_eq!((bound(None), bound(Some(1 << 20)), bound(Some(1024)), bound(Some(10))), (16_384, 16_384, 768, 1));
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_it_may_go() {
        use rustix::process::{Resource, getrlimit};
        let raised = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((raised, limit.current), (limit.maximum, limit.maximum));
    }
}
