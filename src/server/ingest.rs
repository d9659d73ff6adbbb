//! Telemetry on its way to its twins, the same for every door.

use std::time::Duration;

use super::{
    Server,
    identity::{Identity, Wish},
    newcomers::WINDOW,
    otlp::{Refused, Translated},
    problem::{Code, Problem},
};
use crate::{
    metrics::Signal,
    model::{Header, Outcome, Principal, ServiceId, Timestamp, telemetry::Batch},
    twin::{
        Failure, Rejection,
        service::message::{GetAttributes, Ingest},
    },
};

/// Why a part of a request was not taken. OTLP has no repeat for a part, so it does not ask for one.
fn dropped(failure: &Failure) -> String {
    let Failure::Overloaded { what } = failure else { return failure.to_string() };
    format!("{what} is full, and these were dropped")
}

/// What became of a request's telemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What was refused, and why; becomes `partial_success`.
    pub refused: Refused,
}

impl Server {
    /// Whether a sender may send telemetry for a service; the reason if not.
    pub fn covers(identity: &Identity, now: Timestamp) -> impl Fn(&ServiceId) -> Result<(), String> {
        move |service| identity.may(Wish::Observe, service, "", now).map_err(|problem| problem.detail.into_owned())
    }

    /// Tells each batch to its twin.
    ///
    /// # Errors
    /// If nothing at all was taken although it was fit to be: the sender should send it again. What was taken in part
    /// is not an error, since a sender that repeats it would be counted twice.
    pub async fn ingest(
        &self,
        signal: Signal,
        identity: &Identity,
        header: Header,
        translated: Translated,
    ) -> Result<Accepted, Problem> {
        // What was observed since the store stopped could never be saved; its sender keeps it and sends it again.
        self.writable()?;
        let Translated { batches, mut refused } = translated;
        let (mut taken, mut shed) = (0, None);
        for batch in batches {
            let (items, service) = (batch.samples(), batch.service.clone());
            let instance = batch.resource.instance.as_deref();
            if let Err(reason) = instance.map_or(Ok(()), |instance| identity.speak_for(instance)) {
                refused.add(items, format!("service '{service}': {reason}"));
                continue;
            }
            if let Err(reason) = self.welcome(&identity.principal, &service, &header).await {
                refused.add(items, format!("service '{service}': {reason}"));
                if reason.code != Code::NewTwinsLimited {
                    shed = Some(reason);
                }
                continue;
            }
            match self.tell(batch, header.clone()) {
                Ok(()) => taken += items,
                Err(failure) => {
                    refused.add(items, format!("service '{service}': {}", dropped(&failure)));
                    shed = Some(self.problem(&failure));
                }
            }
        }
        self.metrics.ingested(signal, u64::try_from(taken).unwrap_or(u64::MAX), refused.items);
        match shed {
            Some(problem) if taken == 0 => Err(problem),
            Some(_) | None => Ok(Accepted { refused }),
        }
    }

    fn tell(&self, batch: Batch, header: Header) -> Result<(), Failure> {
        let key = batch.service.key().clone();
        let told = self.runtime.twin(&key).tell_with(header, Ingest(Box::new(batch)));
        told.map_err(|refused| refused.failure)
    }

    /// Lets telemetry of a service in that exists, or that this key may bring into being.
    async fn welcome(&self, principal: &Principal, service: &ServiceId, header: &Header) -> Result<(), Problem> {
        if self.newcomers.knows(service) {
            return Ok(());
        }
        match self.ask(service, GetAttributes, header.clone(), None).await {
            Err(Failure::Rejected(Rejection::NotFound { .. } | Rejection::Removed { .. })) => {
                self.newcomers.admit(principal, self.now()).map_err(|pause| self.too_many(pause))?;
            }
            Err(failure) if failure.outcome() == Outcome::NotApplied => return Err(self.problem(&failure)),
            // A read has no effect that could be unknown: the twin exists, and its last commit is in doubt.
            Ok(_) | Err(_) => {}
        }
        self.newcomers.learn(service);
        Ok(())
    }

    fn too_many(&self, pause: Duration) -> Problem {
        let detail = format!(
            "this key has created {} twins within an hour, as many as new_twins_per_hour allows; \
             is something unique in service.name? It may go on in {} s",
            self.newcomers.per_hour_max(),
            pause.min(WINDOW).as_secs()
        );
        Problem::new(Code::NewTwinsLimited, detail).retry_after(pause)
    }

    /// Counts a twin that is created by name, unless it exists.
    pub(super) async fn admit(
        &self,
        principal: &Principal,
        service: &ServiceId,
        header: &Header,
    ) -> Result<(), Problem> {
        self.welcome(principal, service, header).await
    }

    /// Forgets a twin that was removed.
    pub(super) fn removed(&self, service: &ServiceId) {
        self.newcomers.forget(service);
        self.forget_endpoints(service);
    }
}
