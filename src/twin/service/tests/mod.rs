//! Behaviour of the service twin, turn by turn.

mod arbitrary;
mod commands;
mod features;
mod golden;
mod instances;
mod shape;

use std::time::Duration;

use super::{Change, Core, Json, Service, limits, message::Ingest, view::CommandState};
use crate::{
    model::{Header, Key, ServiceId, Timestamp, telemetry::Batch},
    twin::{Decide, Message, Rejection, Turn, Twin, from_bytes, to_bytes},
};

/// A twin with its own time, driven the way an activation drives it.
struct World {
    service: Service,
    key: Key,
    now: Timestamp,
    revision: u64,
    events: Vec<(String, String)>,
}

impl World {
    fn new() -> Self {
        let key = ServiceId::parse("shop/orders").unwrap().key().clone();
        let now = Timestamp::from_unix_ms(1_700_000_000_000);
        Self { service: Service::create(&key), key, now, revision: 0, events: Vec::new() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a message is told, as to the runtime")]
    fn tell<M>(&mut self, message: M) -> Result<M::Reply, Rejection>
    where
        M: Message<Twin = Service>,
        Service: Decide<M>,
    {
        let (key, header) = (self.key.clone(), Header::default());
        let decision = self.service.decide(&message, &Turn::new(self.now, &key, self.revision, &header))?;
        for change in &decision.changes {
            self.take(change);
        }
        let facts = self.service.observe(&message, &Turn::new(self.now, &key, self.revision, &header));
        for change in &facts {
            self.take(change);
        }
        check(&self.service);
        Ok(decision.reply)
    }

    fn take(&mut self, change: &Change) {
        self.revision += 1;
        assert_eq!(&from_bytes::<Change>(&to_bytes(change)).unwrap(), change);
        self.service.apply(change, self.now);
        if let Some(event) = self.service.event(change) {
            self.events.push((event.name.into_owned(), String::from_utf8(event.data.to_vec()).unwrap()));
        }
    }

    /// Lets time pass, with every wake-up on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        for _ in 0..10_000 {
            let Some(at) = self.service.wake_at().filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            let (key, header) = (self.key.clone(), Header::default());
            let decision = self.service.wake(&Turn::new(self.now, &key, self.revision, &header));
            for change in &decision.changes {
                self.take(change);
            }
            check(&self.service);
            assert!(self.service.wake_at().is_none_or(|next| next > self.now), "a wake-up moves on");
        }
        self.now = end;
    }

    /// Drops what only memory holds.
    fn reload(&mut self) {
        self.service = from_bytes(&to_bytes(&self.service)).unwrap();
    }

    fn speak(&mut self, instance: &str, version: &str) -> Result<(), Rejection> {
        let mut batch = Batch::new(ServiceId::parse("shop/orders").unwrap());
        batch.resource.instance = Some(instance.into());
        batch.resource.version = Some(version.into());
        self.tell(Ingest(Box::new(batch)))
    }

    fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|(name, _)| *name == event).count()
    }
}

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

/// What holds after every turn.
fn check(service: &Service) {
    let core = &service.core;
    let bytes = to_bytes(service);
    assert!(bytes.len() <= 22 * 1024, "state of {} bytes", bytes.len());
    let back: Service = from_bytes(&bytes).unwrap();
    assert_eq!(&back.core, core);
    check_bounds(core);
    for command in &core.commands {
        assert_eq!(command.state.is_final(), command.ended_at.is_some());
        assert!(!command.state.is_final() || command.runs.iter().all(|run| run.state.is_final()));
        assert!(
            command.state != CommandState::Queued || command.runs.iter().all(|run| run.state == CommandState::Queued)
        );
    }
    let mut ids: Vec<_> = core.instances.iter().map(|instance| instance.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), core.instances.len(), "an instance is there once");
}

fn check_bounds(core: &Core) {
    assert!(core.instances.len() <= limits::INSTANCES_MAX);
    assert!(core.features.len() <= limits::FEATURES_MAX);
    assert!(core.commands_live().count() <= limits::COMMANDS_LIVE_MAX);
    assert!(core.commands.len() <= limits::COMMANDS_LIVE_MAX + limits::COMMANDS_ENDED_MAX);
    assert!(core.schemas.len() <= limits::SCHEMAS_MAX);
    assert!(core.alerts.len() <= limits::ALERTS_MAX);
    assert!(core.health.reasons.len() <= limits::REASONS_MAX);
    assert!(!core.removed || (core.instances.is_empty() && core.features.is_empty() && core.commands.is_empty()));
}
