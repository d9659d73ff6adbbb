//! Features: what the service shall be, what it says it is, what is in force, and who has followed.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Change, Core, Draft, Json, Service,
    json::{delta, merge},
    limits::{FEATURES_BYTES_MAX, FEATURES_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX},
    message::{Edit, GetFeature, Report, SetDesired, Written},
    view::{AcknowledgementView, FeatureView},
};
use crate::{
    model::{Timestamp, telemetry::cut},
    twin::{Decide, Decision, Rejection, Turn},
};

/// One aspect of a service that can be steered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    pub(super) name: CompactString,
    pub(super) desired: Option<Json>,
    pub(super) desired_version: u64,
    pub(super) reported: Option<Json>,
    pub(super) reported_version: u64,
    pub(super) effective: Option<Json>,
    /// Since when it is not as desired.
    pub(super) diverged_since: Option<Timestamp>,
    pub(super) acknowledgements: Vec<Acknowledgement>,
}

/// What one instance did with a desired version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The instance's number.
    pub instance: u32,
    /// The desired version.
    pub version: u64,
    /// Why it could not be applied.
    pub error: Option<CompactString>,
    /// When it said so.
    pub at: Timestamp,
}

impl Feature {
    /// Bytes as stored, at most.
    pub(super) fn bytes(&self) -> usize {
        const FIXED: usize = 40;
        const ACKNOWLEDGEMENT: usize = 24;
        let documents = [&self.desired, &self.reported, &self.effective].into_iter().flatten();
        FIXED
            + self.name.len()
            + documents.map(|document| document.text().len()).sum::<usize>()
            + self
                .acknowledgements
                .iter()
                .map(|acknowledgement| ACKNOWLEDGEMENT + acknowledgement.error.as_ref().map_or(0, CompactString::len))
                .sum::<usize>()
    }

    fn delta(&self) -> Option<Json> {
        let desired = self.desired.as_ref()?.value();
        let reported = self.reported.as_ref().map_or_else(|| Value::Object(serde_json::Map::new()), Json::value);
        delta(&desired, &reported).map(Json::from)
    }

    /// Whether it is as desired. Where the service reports no properties, acknowledgements alone decide; an instance
    /// that never spoke of versions is not waited for.
    fn is_in_sync(&self, core: &Core) -> bool {
        if self.desired.is_none() {
            return true;
        }
        let content = match &self.reported {
            Some(_) => self.delta().is_none(),
            None => !self.acknowledgements.is_empty(),
        };
        content && self.current(core).all(|(version, error)| version == self.desired_version && error.is_none())
    }

    /// Whether an instance that is up could not apply what is desired now.
    pub(super) fn has_failed(&self, core: &Core) -> bool {
        self.desired.is_some()
            && self.current(core).any(|(version, error)| version == self.desired_version && error.is_some())
    }

    fn current<'a>(&'a self, core: &'a Core) -> impl Iterator<Item = (u64, Option<&'a str>)> {
        self.acknowledgements
            .iter()
            .filter(|acknowledgement| {
                core.instance_number(acknowledgement.instance).is_some_and(super::Instance::is_up)
            })
            .map(|acknowledgement| (acknowledgement.version, acknowledgement.error.as_deref()))
    }

    fn is_empty(&self) -> bool {
        self.desired.is_none()
            && self.reported.is_none()
            && self.effective.is_none()
            && self.acknowledgements.is_empty()
    }

    pub(super) fn view(&self, core: &Core, revision: u64) -> FeatureView {
        FeatureView {
            revision,
            name: self.name.clone(),
            desired: self.desired.clone(),
            desired_version: self.desired_version,
            reported: self.reported.clone(),
            reported_version: self.reported_version,
            effective: self.effective.clone(),
            delta: self.delta(),
            in_sync: self.diverged_since.is_none(),
            diverged_since: self.diverged_since,
            acknowledgements: self
                .acknowledgements
                .iter()
                .filter_map(|acknowledgement| {
                    let instance = core.instance_number(acknowledgement.instance)?.id.clone();
                    let Acknowledgement { version, error, at, .. } = acknowledgement.clone();
                    Some(AcknowledgementView { instance, version, error, at })
                })
                .collect(),
        }
    }
}

/// The changes that bring the recorded sync of every feature up to date.
pub(super) fn transitions(core: &Core) -> Vec<Change> {
    core.features
        .iter()
        .filter_map(|feature| {
            let in_sync = feature.is_in_sync(core);
            (in_sync == feature.diverged_since.is_some())
                .then(|| Change::InSync { feature: feature.name.clone(), in_sync })
        })
        .collect()
}

impl Core {
    pub(super) fn feature(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }

    fn feature_mut(&mut self, name: &str) -> &mut Feature {
        let at = match self.features.binary_search_by(|feature| feature.name.as_str().cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.features.insert(at, Feature { name: name.into(), ..Feature::default() });
                at
            }
        };
        &mut self.features[at]
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other changes have other readers")]
    pub(super) fn apply_feature(&mut self, change: &Change, at: Timestamp) {
        let name = match change {
            Change::Desired { feature, document, version } => {
                let state = self.feature_mut(feature);
                state.desired.clone_from(document);
                state.desired_version = *version;
                feature
            }
            Change::Reported { feature, document, version } => {
                let state = self.feature_mut(feature);
                state.reported.clone_from(document);
                state.reported_version = *version;
                feature
            }
            Change::Effective { feature, document } => {
                self.feature_mut(feature).effective.clone_from(document);
                feature
            }
            Change::Acknowledged { feature, acknowledgement } => {
                let all = &mut self.feature_mut(feature).acknowledgements;
                match all.iter_mut().find(|known| known.instance == acknowledgement.instance) {
                    Some(known) => known.clone_from(acknowledgement),
                    None => all.push(acknowledgement.clone()),
                }
                feature
            }
            Change::InSync { feature, in_sync } => {
                self.feature_mut(feature).diverged_since = (!in_sync).then_some(at);
                feature
            }
            _ => return,
        };
        if self.feature(name).is_some_and(Feature::is_empty) {
            self.features.retain(|feature| feature.name != *name);
        }
    }
}

/// The document after an edit.
fn edited(document: Option<&Json>, edit: &Edit) -> Result<Option<Json>, Rejection> {
    let edited = match edit {
        Edit::Replace(json) => json.clone(),
        Edit::Remove => return Ok(None),
        Edit::Patch(patch) => {
            let mut value = document.map_or(Value::Null, Json::value);
            merge(&mut value, &patch.value());
            Json::from(&value)
        }
    };
    if edited.is_shallow() {
        return Ok(Some(edited));
    }
    Err(Rejection::invalid(format!("a document is nested at most {} deep", Json::DEPTH_MAX)))
}

/// Refuses a name that is empty, too long, or hard to write down.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Rejection> {
    if name.is_empty() || name.chars().any(|c| c.is_control() || c == '/') {
        return Err(Rejection::invalid(format!(
            "{what}: a name is not empty and has no '/' and no control characters"
        )));
    }
    Rejection::within("name_bytes", NAME_BYTES_MAX, name.len())
}

fn check_bounds(core: &Core) -> Result<(), Rejection> {
    Rejection::within("features", FEATURES_MAX, core.features.len())?;
    Rejection::within("features_bytes", FEATURES_BYTES_MAX, core.features.iter().map(Feature::bytes).sum())
}

impl Decide<SetDesired> for Service {
    fn decide(&self, message: &SetDesired, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let feature = &message.feature;
        check_name("feature", feature)?;
        let mut draft = match &message.edit {
            Edit::Patch(_) | Edit::Replace(_) => Draft::write(self, turn, message.if_match)?,
            Edit::Remove => Draft::amend(self, turn, message.if_match)?,
        };
        let before = draft.core.feature(feature).and_then(|feature| feature.desired.clone());
        let document = edited(before.as_ref(), &message.edit)?;
        if document != before {
            let version = draft.version_next();
            draft.push(Change::Desired { feature: feature.clone(), document, version });
            check_bounds(&draft.core)?;
        }
        Ok(draft.written())
    }
}

impl Decide<Report> for Service {
    fn decide(&self, message: &Report, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let feature = &message.feature;
        check_name("feature", feature)?;
        let mut draft = Draft::write(self, turn, message.if_match)?;
        let instance = message.instance.as_deref().map(|id| draft.greet(id, None)).transpose()?;
        let known = draft.core.feature(feature).cloned().unwrap_or_default();
        if let Some(edit) = &message.reported {
            let document = edited(known.reported.as_ref(), edit)?;
            if document != known.reported {
                let version = draft.version_next();
                draft.push(Change::Reported { feature: feature.clone(), document, version });
            }
        }
        if let Some(edit) = &message.effective {
            let document = edited(known.effective.as_ref(), edit)?;
            if document != known.effective {
                draft.push(Change::Effective { feature: feature.clone(), document });
            }
        }
        if let Some(applied) = &message.applied {
            let instance =
                instance.ok_or_else(|| Rejection::invalid("'applied' needs the 'instance' that applied it"))?;
            if applied.version > known.desired_version {
                return Err(Rejection::conflict(format!(
                    "version {} was never desired; the newest is {}",
                    applied.version, known.desired_version
                )));
            }
            let error = applied.error.as_deref().map(|error| CompactString::new(cut(error, REASON_BYTES_MAX)));
            let acknowledgement = Acknowledgement { instance, version: applied.version, error, at: draft.now() };
            if !known
                .acknowledgements
                .iter()
                .any(|same| Acknowledgement { at: draft.now(), ..same.clone() } == acknowledgement)
            {
                draft.push(Change::Acknowledged { feature: feature.clone(), acknowledgement });
            }
        }
        check_bounds(&draft.core)?;
        Ok(draft.written())
    }

    fn observe(&mut self, message: &Report, turn: &Turn<'_>) -> crate::twin::Changes<Change> {
        if let Some(instance) = &message.instance {
            self.hear(Some(instance), turn.now);
        }
        crate::twin::Changes::new()
    }
}

impl Decide<GetFeature> for Service {
    fn decide(&self, message: &GetFeature, turn: &Turn<'_>) -> Result<Decision<Change, FeatureView>, Rejection> {
        let core = self.existing(turn)?;
        match core.feature(&message.feature) {
            Some(feature) => Ok(Decision::new(feature.view(core, turn.revision))),
            None => Err(Rejection::not_found(format!("feature '{}'", message.feature))),
        }
    }
}
