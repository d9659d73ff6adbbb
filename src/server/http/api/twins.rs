//! Twins: finding, reading, creating, removing; attributes, journal, instances.

use axum::{extract::RawQuery, http::StatusCode, response::Response};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Asked, At, Id, page};
use crate::{
    capability::endpoints::TERM,
    model::{Key, Principal, ServiceId, Timestamp},
    server::{
        http::caller::{Caller, Document, Object, json},
        identity::Wish,
        problem::{Code, Problem},
    },
    twin::{
        journal::Moment,
        service::{
            Change, Json, Service,
            message::{Create, GetAttributes, GetView, Remove, SetAttributes},
            parts,
            view::{ServiceView, Status},
        },
    },
};

/// Most twins in one page.
const PAGE_MAX: u16 = 1000;
/// Twins in a page if the caller does not say.
const PAGE: u16 = 100;
/// Most terms in one search.
const TERMS_MAX: usize = 16;

#[derive(Serialize)]
struct Page {
    twins: Vec<Listed>,
    /// `after` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<CompactString>,
}

#[derive(Serialize)]
struct Listed {
    id: CompactString,
    namespace: CompactString,
    name: CompactString,
    /// What the index holds of it: `health`, `attr.…` and others; one that has several values has a list.
    terms: Map<String, Value>,
}

/// Finds twins in the index; none is activated.
pub(super) async fn list(caller: Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    caller.asks_no_twin()?;
    let search = Search::parse(query.as_deref().unwrap_or_default())?;
    let (mut terms, after, limit) = (search.terms, search.after, usize::from(search.limit));
    if let Principal::Service { service, .. } = &*caller.identity.principal {
        caller.identity.left("twin", service.as_str(), "list", caller.server.now())?;
        return Ok(json(None, &own(&caller, service.clone(), terms, after).await?));
    }
    caller.operates("twin", "", "list")?;
    if terms.is_empty() {
        // What is left of a removed twin has no terms.
        terms.push(CompactString::const_new("name=*"));
    }
    let (found, more) = caller.server.find::<Service>(terms, after, limit).await?;
    let next = if more { found.last().map(|last| CompactString::from(last.key.as_str())) } else { None };
    let twins = found.into_iter().map(|found| listed(&found.key, &found.terms)).collect();
    Ok(json(None, &Page { twins, next }))
}

/// A service finds nothing but itself.
async fn own(
    caller: &Caller,
    service: ServiceId,
    mut terms: Vec<CompactString>,
    after: Option<Key>,
) -> Result<Page, Problem> {
    terms.extend([format!("namespace={}", service.namespace()), format!("name={}", service.name())].map(Into::into));
    let (found, _) = caller.server.find::<Service>(terms, after, 1).await?;
    // A name that ends in * stands for others, too.
    let found = found.iter().filter(|found| found.key == *service.key());
    Ok(Page { twins: found.map(|found| listed(&found.key, &found.terms)).collect(), next: None })
}

fn listed(key: &Key, terms: &[CompactString]) -> Listed {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let mut shown = Map::new();
    // The node's own mark is no word of a search.
    let terms = terms.iter().filter_map(|term| term.split_once('=')).filter(|term| *term != TERM);
    for (name, value) in terms {
        match shown.get_mut(name) {
            None => drop(shown.insert(name.to_owned(), value.into())),
            Some(Value::Array(values)) => values.push(value.into()),
            Some(one) => *one = Value::Array(vec![one.take(), value.into()]),
        }
    }
    Listed { id: key.as_str().into(), namespace: namespace.into(), name: name.into(), terms: shown }
}

/// `health=degraded&attr.owner=team-a&after=shop/cart&limit=100`: what is no word of the page is a term.
#[derive(Debug, PartialEq, Eq)]
struct Search {
    terms: Vec<CompactString>,
    after: Option<Key>,
    limit: u16,
}

impl Search {
    fn parse(query: &str) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Code::BadQuery, detail);
        let pairs: Vec<(String, String)> = serde_urlencoded(query)?;
        let (mut terms, mut after, mut limit) = (Vec::new(), None, None);
        for (name, value) in pairs {
            match name.as_str() {
                "after" => after = Some(Key::parse(&value).map_err(|error| bad(format!("after: {error}")))?),
                "limit" => limit = Some(value.parse().map_err(|_| bad(format!("limit '{value}' is no number")))?),
                "health" | "name" | "namespace" | "version" | "environment" | "in_sync" | "instances" => {
                    check(&name, &value)?;
                    terms.push(CompactString::from(format!("{name}={value}")));
                }
                attribute if attribute.starts_with("attr.") => {
                    terms.push(CompactString::from(format!("{name}={value}")));
                }
                _ => {
                    return Err(bad(format!(
                        "'{name}' cannot be searched for; use health, name, namespace, version, environment, in_sync, \
                         instances, attr.<name>, and after and limit for paging"
                    )));
                }
            }
        }
        if terms.len() > TERMS_MAX {
            return Err(bad(format!("a search has at most {TERMS_MAX} terms")));
        }
        Ok(Self { terms, after, limit: page(limit, PAGE, PAGE_MAX)? })
    }
}

/// Refuses what no twin can have; a word that ends in * stands for all that begin so.
fn check(name: &str, value: &str) -> Result<(), Problem> {
    let among = |words: &[&str]| {
        let is_one =
            words.iter().any(|word| value.strip_suffix('*').map_or(*word == value, |start| word.starts_with(start)));
        let detail = || format!("{name} is '{value}', it must be one of: {}", words.join(", "));
        if is_one { Ok(()) } else { Err(Problem::new(Code::BadQuery, detail())) }
    };
    match name {
        "health" => among(&Status::ALL.map(Status::as_str)),
        "in_sync" => among(&["true", "false"]),
        "instances" if value.parse::<u64>().is_err() => {
            Err(Problem::new(Code::BadQuery, format!("instances is '{value}', it must be a number, such as 3")))
        }
        _ => Ok(()),
    }
}

fn serde_urlencoded(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build();
    let uri = uri.map_err(|error| Problem::new(Code::BadQuery, error.to_string()))?;
    let pairs = axum::extract::Query::try_from_uri(&uri);
    pairs.map(|axum::extract::Query(pairs)| pairs).map_err(|error| super::query(&error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ViewQuery {
    at: Option<String>,
    #[serde(default)]
    behaviour: bool,
}

/// Reads a twin, now or as it was.
pub(super) async fn view(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Asked(query): Asked<ViewQuery>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    if let Some(at) = query.at {
        let past = caller.server.past(&service, moment(&at)?, GetView { behaviour: false }, caller.consistency()).await;
        let view = past.map_err(|failure| caller.server.problem(&failure))?;
        return Ok(answer(&caller, &view));
    }
    let view = caller.ask(&service, GetView { behaviour: query.behaviour }).await?;
    Ok(answer(&caller, &view))
}

/// With an ETag unless something observed is in it, which moves on between two revisions; a write that depends on it
/// names the revision of the body in `If-Match`.
fn answer(caller: &Caller, view: &ServiceView) -> Response {
    let observed = view.behaviour.is_some() || view.instances.iter().any(|instance| instance.last_seen.is_some());
    if observed { json(None, view) } else { caller.read(view.revision, view) }
}

/// Milliseconds since 1970 have more digits than any revision will.
const REVISION_DIGITS_MAX: usize = 12;

fn moment(text: &str) -> Result<Moment, Problem> {
    if text.len() <= REVISION_DIGITS_MAX
        && let Ok(revision) = text.parse()
    {
        return Ok(Moment::Revision(revision));
    }
    let wrong = |_| Problem::new(Code::BadQuery, "at must be a revision, or a time such as 2026-01-31T12:00:00Z");
    text.parse().map(Moment::Time).map_err(wrong)
}

/// Reads what the twin has observed.
pub(super) async fn behaviour(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetView { behaviour: true }).await?;
    // No ETag: behaviour moves on between two revisions.
    Ok(json(None, &view.behaviour))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    attributes: Option<Json>,
}

/// Creates a twin, also again after its removal.
pub(super) async fn create(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(body): Document<Option<Object<CreateBody>>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Set)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let create = Create { attributes: body.and_then(|Object(body)| body.attributes) };
    caller.write(&service, StatusCode::CREATED, create, |written| (written.revision, written)).await
}

/// Removes a twin with everything that is its.
pub(super) async fn remove(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Remove)?;
    let remove = Remove { if_match: caller.if_match };
    let removed = caller.write(&service, StatusCode::OK, remove, |written| (written.revision, written)).await?;
    caller.server.removed(&service);
    Ok(removed)
}

/// Reads the attributes.
pub(super) async fn attributes(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetAttributes).await?;
    Ok(caller.read(view.revision, &view.attributes))
}

/// Reads one attribute.
pub(super) async fn attribute(
    caller: Caller,
    At((namespace, name, attribute)): At<(String, String, String)>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetAttributes).await?;
    let value = view.attributes.value();
    match value.get(&attribute) {
        Some(value) => Ok(caller.read(view.revision, value)),
        None => Err(Problem::new(Code::NotFound, format!("'{service}' has no attribute of this name"))),
    }
}

/// Changes attributes by a merge patch.
pub(super) async fn set_attributes(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(patch): Document<Json>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Set)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let set = SetAttributes { patch, if_match: caller.if_match };
    caller.write(&service, StatusCode::OK, set, |written| (written.revision, written)).await
}

/// Reads the instances.
pub(super) async fn instances(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetView { behaviour: false }).await?;
    // No ETag: when an instance was last seen moves on between two revisions.
    Ok(json(None, &view.instances))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalQuery {
    #[serde(default)]
    after: u64,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct Journal {
    entries: Vec<Entry>,
    /// `after` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Serialize)]
struct Entry {
    revision: u64,
    at: Timestamp,
    principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<CompactString>,
    changes: Vec<Value>,
}

/// Reads what changed, by whom and when, oldest first.
pub(super) async fn journal(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Asked(query): Asked<JournalQuery>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let limit = page(query.limit, PAGE, PAGE_MAX)?.into();
    let journaled = caller.server.journal(&service, query.after, limit, caller.consistency()).await;
    let (entries, more) = journaled.map_err(|failure| caller.server.problem(&failure))?;
    let next = if more { entries.last().map(|last| last.revision) } else { None };
    let entries = entries.into_iter().map(|entry| Entry {
        revision: entry.revision,
        at: entry.at,
        principal: entry.principal.to_string(),
        trace: entry.trace.map(|trace| trace.to_string()),
        idempotency_key: entry.request.map(|request| CompactString::from(&*request)),
        changes: entry.changes.iter().map(shown).collect(),
    });
    Ok(json(None, &Journal { entries: entries.collect(), next }))
}

/// `{"Desired": {"feature": …}}` as `{"change": "desired", "feature": …}`.
fn shown(change: &Change) -> Value {
    let part = change.part();
    let written = match part {
        Some((part, schema, change)) => parts::shown(part, schema, change),
        None => serde_json::to_value(change).ok(),
    };
    let (name, fields) = match written {
        Some(Value::Object(tagged)) => tagged.into_iter().next().unwrap_or_default(),
        Some(Value::String(name)) => (name, Value::Null),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | None => {
            // Of a part, or a schema, that this program does not know.
            return serde_json::json!({ "change": part.map_or("unknown", |(part, ..)| part) });
        }
    };
    let mut shown = Map::new();
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    let change = part.map_or(snake.clone(), |(part, ..)| format!("{part}.{snake}"));
    shown.insert("change".to_owned(), change.into());
    if let Value::Object(fields) = fields {
        shown.extend(fields);
    }
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_terms_and_a_page() {
        let search = Search::parse("health=degraded&attr.owner=team%20a&after=shop/cart&limit=7").unwrap();
        assert_eq!(search.terms, ["health=degraded", "attr.owner=team a"]);
        assert_eq!((search.after.unwrap().as_str(), search.limit), ("shop/cart", 7));
        assert_eq!(Search::parse("").unwrap().limit, PAGE);
        for wrong in ["color=red", "limit=0", "limit=1001", "limit=x", "after="] {
            assert_eq!(Search::parse(wrong).unwrap_err().code, Code::BadQuery, "{wrong}");
        }
    }

    #[test]
    fn terms_of_one_name_become_a_list() {
        let key = Key::parse("shop/cart").unwrap();
        let shown = listed(&key, &["label=a".into(), "label=b".into(), "label=c".into(), "health=healthy".into()]);
        assert_eq!(Value::Object(shown.terms), serde_json::json!({"label": ["a", "b", "c"], "health": "healthy"}));
        assert_eq!((shown.namespace.as_str(), shown.name.as_str()), ("shop", "cart"));
    }

    #[test]
    fn a_change_is_shown_with_its_name_among_its_fields() {
        let change = Change::Desired { feature: "limits".into(), document: None, version: 3 };
        let expected = serde_json::json!({"change": "desired", "feature": "limits", "document": null, "version": 3});
        assert_eq!(shown(&change), expected);
        assert_eq!(shown(&Change::PresenceRearmed), serde_json::json!({"change": "presence_rearmed"}));
    }

    #[test]
    fn a_moment_is_a_revision_or_a_time() {
        assert_eq!(moment("12"), Ok(Moment::Revision(12)));
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Moment::Time(Timestamp::from_unix_ms(1000))));
        assert_eq!(moment("1769860800000"), Ok(Moment::Time(Timestamp::from_unix_ms(1_769_860_800_000))));
        assert_eq!(moment("yesterday").unwrap_err().code, Code::BadQuery);
    }
}
