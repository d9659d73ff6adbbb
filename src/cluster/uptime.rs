//! The clock of leases.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Uptime;

/// The machine's own: on Linux it goes on while the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub struct SystemUptime;

impl Uptime for SystemUptime {
    fn now(&self) -> Duration {
        #[cfg(target_os = "linux")]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: ClockId = ClockId::Monotonic;
        Duration::try_from(clock_gettime(CLOCK)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_goes_on() {
        let before = SystemUptime.now();
        assert!(before > Duration::ZERO && SystemUptime.now() >= before);
    }
}
