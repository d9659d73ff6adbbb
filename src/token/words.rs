//! The words of a token: the facts of its first block, and the checks by which a block takes something away.
//!
//! ```text
//! token("0123456789abcdef");  covers("service", "shop/orders");  issued(1769860800000);
//! check if operation($x), {"get", "list"}.contains($x);
//! check if scope("state:total") or scope($x), $x.starts_with("state:orders/");
//! check if time($x), $x < 2026-02-01T00:00:00Z;
//! reject if instance($x), !{"orders-1"}.contains($x);
//! check if audience($x), {"east"}.contains($x);
//! ```

use biscuit_auth::builder::{
    Binary, Check, CheckKind, Expression, Fact, Op, Predicate, Rule, Term, Unary, fact, int, pred, set, string, var,
};
use compact_str::CompactString;

use super::{NAME_BYTES_MAX, NAMES_MAX};
use crate::{
    model::{
        ServiceId, Timestamp,
        rights::{Attenuation, Narrowing},
        scope::{Operations, Pattern},
    },
    twin::keyring::Covers,
};

/// What stands for the one value that a check is about.
const VALUE: &str = "x";

/// The facts of a first block.
pub(super) fn facts(id: &str, covers: &Covers, issued_at: Timestamp) -> [Fact; 3] {
    let covered = match covers {
        Covers::Operator => vec![string("operator")],
        Covers::Ingest { namespace } => vec![string("ingest"), string(namespace)],
        Covers::Service { service } => vec![string("service"), string(service.as_str())],
    };
    let issued_at = i64::try_from(issued_at.unix_ms()).unwrap_or(i64::MAX);
    [fact("token", &[string(id)]), fact("covers", &covered), fact("issued", &[int(issued_at)])]
}

/// Reads the facts of a first block: id, what is covered, when it was issued. `None` if they are not exactly these.
pub(super) fn read_facts(facts: &[Fact]) -> Option<(CompactString, Covers, Timestamp)> {
    let [token, covers, issued] = facts else { return None };
    let ([Term::Str(id)], [Term::Integer(issued_at)]) = (terms(token, "token")?, terms(issued, "issued")?) else {
        return None;
    };
    let covers = match terms(covers, "covers")? {
        [Term::Str(kind)] if kind == "operator" => Covers::Operator,
        [Term::Str(kind), Term::Str(namespace)] if kind == "ingest" => {
            // A namespace is good if a service in it would be.
            ServiceId::new(namespace, "x").ok()?;
            Covers::Ingest { namespace: namespace.as_str().into() }
        }
        [Term::Str(kind), Term::Str(service)] if kind == "service" => {
            Covers::Service { service: ServiceId::parse(service).ok()? }
        }
        _ => return None,
    };
    Some((id.into(), covers, Timestamp::from_unix_ms(u64::try_from(*issued_at).ok()?)))
}

fn terms<'a>(fact: &'a Fact, name: &str) -> Option<&'a [Term]> {
    (fact.predicate.name == name).then_some(&fact.predicate.terms)
}

/// The checks that take what `attenuation` takes.
pub(super) fn checks(attenuation: &Attenuation) -> Vec<Check> {
    let Attenuation { narrowing: Narrowing { operations, scopes }, expires_at, instances, audiences } = attenuation;
    let mut checks = Vec::new();
    match operations {
        Operations::All => {}
        Operations::Some(names) => checks.push(one_of("operation", names)),
    }
    if let Some(scopes) = scopes {
        checks.push(Check { queries: scopes.iter().map(in_scope).collect(), kind: CheckKind::One });
    }
    if let Some(expires_at) = expires_at {
        let seconds = expires_at.unix_ms() / 1000;
        let before = vec![Op::Value(var(VALUE)), Op::Value(Term::Date(seconds)), Op::Binary(Binary::LessThan)];
        checks.push(Check { queries: vec![query("time", var(VALUE), Some(before))], kind: CheckKind::One });
    }
    if let Some(instances) = instances {
        let mut other = contains(instances);
        other.push(Op::Unary(Unary::Negate));
        // Not 'check if', which a request that names no instance would fail.
        checks.push(Check { queries: vec![query("instance", var(VALUE), Some(other))], kind: CheckKind::Reject });
    }
    if let Some(audiences) = audiences {
        checks.push(one_of("audience", audiences));
    }
    checks
}

fn one_of(name: &str, values: &[CompactString]) -> Check {
    Check { queries: vec![query(name, var(VALUE), Some(contains(values)))], kind: CheckKind::One }
}

fn contains(values: &[CompactString]) -> Vec<Op> {
    let values = values.iter().map(|value| string(value)).collect();
    vec![Op::Value(set(values)), Op::Value(var(VALUE)), Op::Binary(Binary::Contains)]
}

fn in_scope(pattern: &Pattern) -> Rule {
    if pattern.is_exact() {
        return query("scope", string(pattern.as_str()), None);
    }
    let start = string(pattern.as_str().strip_suffix('*').unwrap_or_default());
    query("scope", var(VALUE), Some(vec![Op::Value(var(VALUE)), Op::Value(start), Op::Binary(Binary::Prefix)]))
}

fn query(name: &str, value: Term, condition: Option<Vec<Op>>) -> Rule {
    let nothing: [Term; 0] = [];
    let conditions = condition.into_iter().map(|ops| Expression { ops }).collect();
    Rule::new(pred("query", &nothing), vec![pred(name, &[value])], conditions, Vec::new())
}

/// Reads what the checks of a block take.
///
/// # Errors
/// Which one is none of ours, counted from 1, and what is wrong with it.
pub(super) fn read_checks(checks: &[Check]) -> Result<Attenuation, String> {
    let mut read = Attenuation::default();
    for (at, check) in checks.iter().enumerate() {
        let wrong = |what: &str| format!("its check {} {what}", at + 1);
        let word = word(check).ok_or_else(|| {
            wrong("is none of: operations, scopes, expiry, instances, audiences as 'twin token attenuate' writes them")
        })?;
        if word.len() > NAMES_MAX {
            return Err(wrong(&format!("names more than {NAMES_MAX}")));
        }
        if !take(&mut read, word) {
            return Err(wrong("says again what an earlier one said"));
        }
    }
    Ok(read)
}

/// What one check says.
enum Word {
    Operations(Vec<CompactString>),
    Scopes(Vec<Pattern>),
    Expires(Timestamp),
    Instances(Vec<CompactString>),
    Audiences(Vec<CompactString>),
}

impl Word {
    fn len(&self) -> usize {
        match self {
            Self::Operations(names) | Self::Instances(names) | Self::Audiences(names) => names.len(),
            Self::Scopes(scopes) => scopes.len(),
            Self::Expires(_) => 1,
        }
    }
}

/// Takes a word into what was read; `false` if that has one of this kind.
fn take(read: &mut Attenuation, word: Word) -> bool {
    match word {
        Word::Operations(names) => {
            let first = read.narrowing.operations == Operations::All;
            read.narrowing.operations = Operations::Some(names);
            first
        }
        Word::Scopes(scopes) => read.narrowing.scopes.replace(scopes).is_none(),
        Word::Expires(at) => read.expires_at.replace(at).is_none(),
        Word::Instances(names) => read.instances.replace(names).is_none(),
        Word::Audiences(names) => read.audiences.replace(names).is_none(),
    }
}

fn word(check: &Check) -> Option<Word> {
    let [first, ..] = &check.queries[..] else { return None };
    if about(first)?.0 == "scope" && check.kind == CheckKind::One {
        let scopes = check.queries.iter().take(NAMES_MAX + 1).map(scope).collect::<Option<Vec<_>>>()?;
        return Some(Word::Scopes(scopes));
    }
    let [query] = &check.queries[..] else { return None };
    let [Expression { ops }] = &query.expressions[..] else { return None };
    match (about(query)?, &check.kind, &ops[..]) {
        (("operation", Term::Variable(x)), CheckKind::One, ops) => names(x, ops).map(Word::Operations),
        (("audience", Term::Variable(x)), CheckKind::One, ops) => names(x, ops).map(Word::Audiences),
        (("instance", Term::Variable(x)), CheckKind::Reject, [ops @ .., Op::Unary(Unary::Negate)]) => {
            names(x, ops).map(Word::Instances)
        }
        (
            ("time", Term::Variable(x)),
            CheckKind::One,
            [Op::Value(Term::Variable(y)), Op::Value(Term::Date(seconds)), Op::Binary(Binary::LessThan)],
        ) if x == y => Some(Word::Expires(Timestamp::from_unix_ms(seconds.checked_mul(1000)?))),
        _ => None,
    }
}

/// The one fact that a query of ours is about.
fn about(query: &Rule) -> Option<(&str, &Term)> {
    let Predicate { name, terms } = &query.head;
    if name != "query" || !terms.is_empty() || !query.scopes.is_empty() {
        return None;
    }
    let [Predicate { name, terms }] = &query.body[..] else { return None };
    let [term] = &terms[..] else { return None };
    Some((name, term))
}

fn scope(query: &Rule) -> Option<Pattern> {
    match (about(query)?, &query.expressions[..]) {
        (("scope", Term::Str(text)), []) => Pattern::parse(text).ok().filter(Pattern::is_exact),
        (("scope", Term::Variable(x)), [Expression { ops }]) => match &ops[..] {
            [Op::Value(Term::Variable(y)), Op::Value(Term::Str(start)), Op::Binary(Binary::Prefix)] if x == y => {
                Pattern::parse(&format!("{start}*")).ok()
            }
            _ => None,
        },
        _ => None,
    }
}

/// `{"a", "b"}.contains($x)`
fn names(x: &str, ops: &[Op]) -> Option<Vec<CompactString>> {
    let [Op::Value(Term::Set(values)), Op::Value(Term::Variable(y)), Op::Binary(Binary::Contains)] = ops else {
        return None;
    };
    let name = |value: &Term| if let Term::Str(name) = value { is_name(name).then(|| name.into()) } else { None };
    if x == y && !values.is_empty() { values.iter().take(NAMES_MAX + 1).map(name).collect() } else { None }
}

/// Whether an operation, instance or audience can be called so.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control)
}
