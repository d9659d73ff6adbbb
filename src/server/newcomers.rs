//! Bounds how many twins one key may bring into being within an hour.

use std::{sync::Arc, time::Duration};

use ahash::{HashMap, HashMapExt, HashSet, HashSetExt};
use parking_lot::Mutex;

use crate::model::{Key, Principal, ServiceId, Timestamp};

/// Services known to exist; when full, each is looked up again.
const KNOWN_MAX: usize = 1 << 20;
/// Keys whose new twins are counted.
const KEYS_MAX: usize = 65_536;
/// The window in which new twins are counted.
pub const WINDOW: Duration = Duration::from_secs(3600);

struct Window {
    since: Timestamp,
    created: u32,
}

/// Remembers which twins exist and counts the new ones of each key.
pub struct Newcomers {
    known: Mutex<HashSet<u64>>,
    windows: Mutex<HashMap<Arc<str>, Window>>,
    per_hour_max: u32,
}

impl Newcomers {
    /// Allows each key so many new twins an hour.
    pub fn new(per_hour_max: u32) -> Self {
        Self { known: Mutex::new(HashSet::new()), windows: Mutex::new(HashMap::new()), per_hour_max }
    }

    /// The bound.
    pub fn per_hour_max(&self) -> u32 {
        self.per_hour_max
    }

    /// Whether a service is known to exist.
    pub fn knows(&self, service: &ServiceId) -> bool {
        self.known.lock().contains(&Key::hash_of(service.as_str()))
    }

    /// Remembers that a service exists.
    pub fn learn(&self, service: &ServiceId) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(Key::hash_of(service.as_str()));
    }

    /// Forgets a service that was removed.
    pub fn forget(&self, service: &ServiceId) {
        self.known.lock().remove(&Key::hash_of(service.as_str()));
    }

    /// Counts a new twin; otherwise says when the key may bring another one.
    pub fn admit(&self, principal: &Principal, now: Timestamp) -> Result<(), Duration> {
        let key_id = match principal {
            Principal::Host | Principal::Runtime | Principal::Twin { .. } => return Ok(()),
            Principal::Operator { key_id } | Principal::Ingest { key_id, .. } | Principal::Service { key_id, .. } => {
                key_id
            }
        };
        let mut windows = self.windows.lock();
        if windows.len() >= KEYS_MAX && !windows.contains_key(key_id) {
            windows.retain(|_, window| now < window.since.after(WINDOW));
        }
        let window = windows.entry(key_id.clone()).or_insert(Window { since: now, created: 0 });
        if window.since.after(WINDOW) <= now {
            *window = Window { since: now, created: 0 };
        }
        if window.created >= self.per_hour_max {
            return Err(window.since.after(WINDOW).since(now));
        }
        window.created += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_number_of_new_twins_an_hour() {
        let newcomers = Newcomers::new(2);
        let (one, two) = (Principal::Operator { key_id: "1".into() }, Principal::Operator { key_id: "2".into() });
        let now = Timestamp::from_unix_ms(5_000);
        assert!(newcomers.admit(&one, now).is_ok());
        assert!(newcomers.admit(&one, now).is_ok());
        assert_eq!(newcomers.admit(&one, now.after(Duration::from_secs(600))), Err(Duration::from_secs(3000)));
        assert!(newcomers.admit(&two, now).is_ok());
        assert!(newcomers.admit(&one, now.after(WINDOW)).is_ok());
    }
}
