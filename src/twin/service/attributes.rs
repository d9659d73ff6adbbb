//! The twin itself: coming, being looked at, going; and its attributes.

use super::{
    Change, Draft, Json, Service,
    draft::check,
    json::merge,
    limits::ATTRIBUTES_BYTES_MAX,
    message::{Create, GetAttributes, GetView, Remove, SetAttributes, Written},
    observed::Observed,
    view::{AlertView, AttributesView, BehaviourView, HealthView, ServiceView},
};
use crate::twin::{Decide, Decision, Rejection, Turn};

fn check_attributes(attributes: &Json) -> Result<(), Rejection> {
    if !attributes.value().is_object() {
        return Err(Rejection::invalid("attributes are a JSON object"));
    }
    if !attributes.is_shallow() {
        return Err(Rejection::invalid(format!("attributes are nested at most {} deep", Json::DEPTH_MAX)));
    }
    Rejection::within("attributes_bytes", ATTRIBUTES_BYTES_MAX, attributes.text().len())
}

impl Decide<Create> for Service {
    fn decide(&self, message: &Create, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        if self.core.exists {
            return Err(Rejection::conflict(format!("service '{}' exists", self.core.id)));
        }
        let attributes = message.attributes.clone().unwrap_or_default();
        check_attributes(&attributes)?;
        let mut draft = Draft::of(self, turn);
        draft.push(Change::Created { attributes });
        Ok(draft.written())
    }
}

impl Decide<Remove> for Service {
    fn decide(&self, message: &Remove, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        self.existing(turn)?;
        check(message.if_match, turn)?;
        let mut draft = Draft::of(self, turn);
        draft.push(Change::Removed);
        Ok(Observed::page_names().fold(draft.written().forget_past(), |decision, page| decision.page(page, None)))
    }
}

impl Decide<SetAttributes> for Service {
    fn decide(&self, message: &SetAttributes, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let mut draft = Draft::write(self, turn, message.if_match)?;
        let mut value = draft.core.attributes.value();
        merge(&mut value, &message.patch.value());
        let attributes = Json::from(&value);
        check_attributes(&attributes)?;
        if attributes != draft.core.attributes {
            draft.push(Change::Attributes { attributes });
        }
        Ok(draft.written())
    }
}

impl Decide<GetAttributes> for Service {
    fn decide(&self, _: &GetAttributes, turn: &Turn<'_>) -> Result<Decision<Change, AttributesView>, Rejection> {
        let attributes = self.existing(turn)?.attributes.clone();
        Ok(Decision::new(AttributesView { revision: turn.revision, attributes }))
    }
}

impl Service {
    fn behaviour(&self, turn: &Turn<'_>) -> BehaviourView {
        self.observed.as_ref().map(|observed| observed.view(turn.now)).unwrap_or_default()
    }
}

impl Decide<GetView> for Service {
    fn decide(&self, message: &GetView, turn: &Turn<'_>) -> Result<Decision<Change, Box<ServiceView>>, Rejection> {
        let core = self.existing(turn)?;
        let (namespace, name) = core.id.split_once('/').unwrap_or(("", &core.id));
        let alerts = core.alerts.iter().cloned();
        let view = ServiceView {
            id: core.id.clone(),
            namespace: namespace.into(),
            name: name.into(),
            revision: turn.revision,
            created_at: core.created_at,
            version: (!core.version.is_empty()).then(|| core.version.clone()),
            environment: (!core.environment.is_empty()).then(|| core.environment.clone()),
            health: HealthView {
                status: core.health.status,
                since: core.health.since,
                reasons: core.health.reasons.clone(),
            },
            in_sync: core.features.iter().all(|feature| feature.diverged_since.is_none()),
            attributes: core.attributes.clone(),
            instances: core.instances.iter().map(|instance| instance.view(self.heard.of(instance.number))).collect(),
            instances_beyond: u64::try_from(self.heard.beyond(turn.now)).unwrap_or(u64::MAX),
            features: core.features.iter().map(|feature| feature.view(core, turn.revision)).collect(),
            alerts: alerts
                .map(|alert| AlertView {
                    key: alert.key,
                    status: alert.status,
                    opened_at: alert.opened_at,
                    value: alert.value,
                    expected: alert.expected,
                })
                .collect(),
            commands_live: u64::try_from(core.commands_live().count()).unwrap_or(u64::MAX),
            commands_defined: core.schemas.iter().map(|schema| schema.command.clone()).collect(),
            behaviour: message.behaviour.then(|| self.behaviour(turn)),
        };
        Ok(Decision::new(Box::new(view)))
    }
}
