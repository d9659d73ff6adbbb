//! The service as an instance of its twin: there while it is up, gone when it has ended well.

use std::{convert::Infallible, sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::{flags::Plan, health::Health};
use crate::{
    cli::{
        Client,
        client::{segment, twin_path},
        error::Error,
        print,
    },
    twin::service::limits::{INSTANCE_ID_BYTES_MAX, REASON_BYTES_MAX, VERSION_BYTES_MAX},
};

/// How often the twin hears of it: well within the shortest time after which operators let an instance count as lost.
const BEAT_EVERY: Duration = Duration::from_secs(10);

/// One instance, under the service's own key.
#[derive(Clone)]
pub(super) struct Instance {
    client: Client,
    path: String,
    name: String,
    version: Option<String>,
    /// Held while the twin is told how it is.
    telling: Arc<Mutex<()>>,
}

impl Instance {
    pub(super) fn new(client: Client, plan: &Plan) -> Result<Self, Error> {
        if plan.instance.len() > INSTANCE_ID_BYTES_MAX {
            return Err(Error::Usage(format!("the instance's id is longer than {INSTANCE_ID_BYTES_MAX} bytes")));
        }
        let path = format!("{}/instances/{}", twin_path(plan.service.as_str())?, segment(&plan.instance));
        let version = plan.version.as_deref().map(|version| cut(version, VERSION_BYTES_MAX));
        Ok(Self { client, path, name: plan.instance.clone(), version, telling: Arc::default() })
    }

    /// Its id.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the node hands it its commands.
    pub(super) fn commands_path(&self) -> String {
        format!("{}/commands", self.path)
    }

    /// Where the node finds the way in to it.
    pub(super) fn channel_path(&self) -> String {
        format!("{}/channel", self.path)
    }

    /// Tells the twin again and again, and at once what is new. What goes wrong is said once, until it goes well again.
    pub(super) async fn beat(&self, mut health: watch::Receiver<Health>) -> Infallible {
        let mut is_heard = true;
        loop {
            let now = health.borrow_and_update().clone();
            let telling = self.telling.lock().await;
            let told = self.tell(&now).await;
            drop(telling);
            match told {
                Ok(()) if !is_heard => {
                    print::aside("its twin hears of it again");
                    is_heard = true;
                }
                Err(error) if is_heard => {
                    print::aside(&format!("its twin does not hear of it at present: {error}"));
                    is_heard = false;
                }
                Ok(()) | Err(_) => {}
            }
            let pause = tokio::time::sleep(BEAT_EVERY);
            tokio::select! {
                () = pause => {}
                // It is not watched any more: what was told last stands.
                changed = health.changed() => if changed.is_err() { tokio::time::sleep(BEAT_EVERY).await },
            }
        }
    }

    /// Waits until the twin is being told nothing; it is not while the guard is held. What is broken off on its way could
    /// arrive after the last word.
    pub(super) async fn silent(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.telling).lock_owned().await
    }

    async fn tell(&self, health: &Health) -> Result<(), Error> {
        match health {
            Health::Starting => Ok(()),
            Health::Healthy => self.put(json!({ "status": "healthy", "reason": "" })).await,
            Health::Unhealthy(why) => self.put(unhealthy(why)).await,
        }
    }

    async fn put(&self, health: Value) -> Result<(), Error> {
        let mut body = json!({ "health": health });
        if let Some(version) = &self.version {
            body["version"] = version.as_str().into();
        }
        self.client.write(Method::PUT, &self.path, Some(&body), None).await.map(drop)
    }

    /// It has ended in good order: its twin forgets it.
    pub(super) async fn leave(&self) {
        match self.client.write(Method::DELETE, &self.path, None, None).await {
            // One that was never heard of need not be taken out.
            Ok(_) | Err(Error::Refused { status: 404 | 410, .. }) => {}
            Err(error) => print::aside(&format!("its twin will take it for lost: {error}")),
        }
    }

    /// It has ended otherwise: its twin keeps it, unwell, until it counts as lost.
    pub(super) async fn fall(&self, code: u8) {
        if let Err(error) = self.put(unhealthy(&format!("ended with exit code {code}"))).await {
            print::aside(&format!("its twin will take it for lost: {error}"));
        }
    }
}

fn unhealthy(why: &str) -> Value {
    json!({ "status": "unhealthy", "reason": cut(why, REASON_BYTES_MAX) })
}

/// At most so many bytes, and whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}
