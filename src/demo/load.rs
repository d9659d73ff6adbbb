//! The customers: requests at a rate that does not wait for answers, as real ones do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};

use super::plan::{self, CUSTOMERS};

/// Requests open at once; beyond them customers give up at the door.
const OPEN_MAX: usize = 64;
/// How often requests are sent.
const TICK: Duration = Duration::from_millis(50);
/// How long a customer waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// What they met with.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// Sends until it is aborted.
pub(super) fn start(gateway: String, lasts: Option<Duration>, tally: Arc<Tally>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap_or_default();
        let (began, open) = (Instant::now(), Arc::new(Semaphore::new(OPEN_MAX)));
        let mut ticks = tokio::time::interval(TICK);
        let mut owed = 0.0;
        loop {
            ticks.tick().await;
            owed += plan::rate(began.elapsed(), lasts) * TICK.as_secs_f64();
            while owed >= 1.0 {
                owed -= 1.0;
                let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
                let (method, path) = customer();
                let request = if method == "POST" {
                    client.post(format!("{gateway}{path}"))
                } else {
                    client.get(format!("{gateway}{path}"))
                };
                let tally = Arc::clone(&tally);
                tokio::spawn(async move {
                    let answered = request.send().await;
                    tally.requests.fetch_add(1, Ordering::Relaxed);
                    if !answered.is_ok_and(|response| response.status().is_success()) {
                        tally.errors.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(permit);
                });
            }
        }
    })
}

/// What the next customer does.
fn customer() -> (&'static str, &'static str) {
    let mut draw = rand::random_range(0..CUSTOMERS.iter().map(|(_, _, weight)| weight).sum());
    for (method, path, weight) in CUSTOMERS {
        if draw < weight {
            return (method, path);
        }
        draw -= weight;
    }
    (CUSTOMERS[0].0, CUSTOMERS[0].1)
}
