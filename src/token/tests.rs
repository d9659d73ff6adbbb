//! What a token says is what Biscuit's own authorizer makes of it; and whatever else is no token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use biscuit_auth::{
    Algorithm, AuthorizerBuilder, AuthorizerLimits, Biscuit, BlockBuilder, KeyPair, PrivateKey, UnverifiedBiscuit,
    builder::{Term, fact, string},
};
use compact_str::CompactString;
use proptest::prelude::{ProptestConfig, any, proptest};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    BLOCKS_MAX, Error, InvalidAttenuation, NAMES_MAX, PREFIX, RootKey, Said, TOKEN_BYTES_MAX, attenuate, show,
};
use crate::{
    model::{
        ServiceId, Timestamp, TokenRights,
        rights::{Attenuation, Narrowing},
        scope::{Operations, Pattern, Want},
    },
    twin::keyring::Covers,
};

const ID: &str = "0123456789abcdef";
const NOW: Timestamp = Timestamp::from_unix_ms(1_769_860_800_000);

fn service() -> Covers {
    Covers::Service { service: ServiceId::parse("shop/orders").unwrap() }
}

fn whole(root: &RootKey) -> String {
    root.mint(ID, &service(), NOW, &Attenuation::default()).unwrap()
}

fn names(names: &[&str]) -> Vec<CompactString> {
    names.iter().copied().map(CompactString::from).collect()
}

fn operations(some: &[&str]) -> Attenuation {
    let narrowing = Narrowing { operations: Operations::Some(names(some)), scopes: None };
    Attenuation { narrowing, ..Attenuation::default() }
}

fn everything() -> Attenuation {
    let scopes = ["state:orders/*", "state:total", "twin:*"].map(|scope| Pattern::parse(scope).unwrap());
    Attenuation {
        narrowing: Narrowing { operations: Operations::Some(names(&["get", "list"])), scopes: Some(scopes.into()) },
        expires_at: Some(NOW),
        instances: Some(names(&["a", "b"])),
        audiences: Some(names(&["east"])),
    }
}

fn bytes(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// A token with a block that somebody wrote by hand.
fn with_block(token: &str, block: BlockBuilder) -> String {
    let token = UnverifiedBiscuit::from(bytes(token)).unwrap();
    text(&token.append(block).unwrap().to_vec().unwrap())
}

fn code(token: &str, datalog: &str) -> String {
    with_block(token, BlockBuilder::new().code(datalog).unwrap())
}

/// What a token that is refused for its words is refused for.
fn refused(root: &RootKey, token: &str) -> String {
    match root.verify(token) {
        Err(Error::Foreign { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_says_what_it_was_made_for() {
    let root = RootKey::generate();
    for covers in [Covers::Operator, Covers::Ingest { namespace: "shop".into() }, service()] {
        let token = root.mint(ID, &covers, NOW, &Attenuation::default()).unwrap();
        let rights = TokenRights { issued_at: NOW, ..TokenRights::default() };
        let said = Said { id: ID.into(), covers, rights };
        assert_eq!((root.verify(&token), show(&token)), (Ok(said.clone()), Ok(said)));
    }
}

#[test]
fn what_is_taken_is_read_back_whether_by_the_first_block_or_a_later_one() {
    let root = RootKey::generate();
    let mut rights = TokenRights { issued_at: NOW, ..TokenRights::default() };
    rights.narrow(everything());
    let first = root.mint(ID, &service(), NOW, &everything()).unwrap();
    let later = attenuate(&whole(&root), &everything()).unwrap();
    for token in [first, later] {
        assert_eq!(root.verify(&token).unwrap().rights, rights);
    }
}

#[test]
fn a_root_key_reads_back_from_its_text_and_prints_nothing() {
    let root = RootKey::generate();
    let same = RootKey::parse(&format!("{}\n", root.to_text())).unwrap();
    assert!(same.verify(&whole(&root)).is_ok());
    assert_eq!(format!("{root:?}"), "RootKey");
    let other = KeyPair::new_with_algorithm(Algorithm::Secp256r1).private().to_prefixed_string();
    for wrong in ["", "ed25519-private/", "ed25519-private/00", &other, &root.to_text()[1..]] {
        assert!(RootKey::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_token_of_which_one_byte_is_another_is_refused() {
    let root = RootKey::generate();
    let token = bytes(&attenuate(&whole(&root), &everything()).unwrap());
    assert!(root.verify(&text(&token)).is_ok());
    for at in 0..token.len() {
        for flip in [0x01, 0x80] {
            let mut token = token.clone();
            token[at] ^= flip;
            assert!(root.verify(&text(&token)).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_token_that_was_cut_or_went_on_is_refused() {
    let root = RootKey::generate();
    let token = attenuate(&whole(&root), &everything()).unwrap();
    for len in 0..token.len() {
        assert!(root.verify(&token[..len]).is_err(), "{len} bytes");
    }
    for more in ["=", "A", " ", "\n", "AAAA"] {
        assert!(root.verify(&format!("{token}{more}")).is_err(), "{more:?}");
    }
}

#[test]
fn a_block_cannot_be_taken_off_again() {
    use biscuit_auth::format::schema;
    use biscuit_prost::Message as _;
    let root = RootKey::generate();
    let narrowed = attenuate(&attenuate(&whole(&root), &operations(&["get"])).unwrap(), &everything()).unwrap();
    let mut token = schema::Biscuit::decode(&bytes(&narrowed)[..]).unwrap();
    token.blocks.pop();
    assert!(matches!(root.verify(&text(&token.encode_to_vec())), Err(Error::NotOurs { .. })));
}

#[test]
fn a_token_of_another_root_is_refused() {
    let (root, other) = (RootKey::generate(), RootKey::generate());
    assert!(matches!(other.verify(&whole(&root)), Err(Error::NotOurs { .. })));
    assert!(matches!(other.verify(&attenuate(&whole(&root), &everything()).unwrap()), Err(Error::NotOurs { .. })));
}

#[test]
fn a_block_that_widens_is_refused() {
    let root = RootKey::generate();
    let token = attenuate(&whole(&root), &operations(&["get"])).unwrap();
    for fact in [r#"operation("set")"#, r#"covers("operator")"#, r#"token("fedcba9876543210")"#] {
        assert_eq!(refused(&root, &code(&token, &format!("{fact};"))), "it states facts, and only the first block may");
    }
    let rule = r#"operation("set") <- operation("get");"#;
    assert_eq!(refused(&root, &code(&token, rule)), "it has rules");
}

#[test]
fn a_check_of_another_kind_is_refused() {
    let root = RootKey::generate();
    let token = whole(&root);
    for check in [
        r"check if true",
        r#"check if operation("get")"#,
        r"check if operation($x)",
        r#"check all operation($x), {"get"}.contains($x)"#,
        r#"reject if operation($x), {"get"}.contains($x)"#,
        r#"check if operation($x), ["get"].contains($x)"#,
        r"check if operation($x), {7}.contains($x)",
        r"check if operation($x), {,}.contains($x)",
        r#"check if operation($x), {"get"}.contains($x), true"#,
        r#"check if operation($x), {"get"}.contains($x) || true"#,
        r#"check if operation($x), operation($y), {"get"}.contains($x)"#,
        r#"check if operation($x), {"get"}.contains($x) or true"#,
        r#"check if operation($x), {"get"}.contains($x) trusting previous"#,
        r#"check if operation($x, $y), {"get"}.contains($x)"#,
        r#"check if user($x), {"get"}.contains($x)"#,
        r#"check if instance($x), {"a"}.contains($x)"#,
        r#"check if scope("state:*")"#,
        r#"check if scope("nonsense")"#,
        r#"check if scope($x), $x.starts_with("nonsense")"#,
        r#"check if scope($x), $x.ends_with("state:a")"#,
        r#"check if scope($x), $x.matches("state:a")"#,
        r#"check if scope("state:a") or true"#,
        r"check if time($x), $x <= 2030-01-01T00:00:00Z",
        r"check if time($x), $x > 2030-01-01T00:00:00Z",
        r"check if time($x), 2030-01-01T00:00:00Z < $x",
    ] {
        let what = refused(&root, &code(&token, &format!("{check};")));
        assert!(what.starts_with("its check 1 is none of"), "{check}: {what}");
    }
    let twice = r#"check if operation($x), {"get"}.contains($x); check if operation($y), {"set"}.contains($y);"#;
    assert_eq!(refused(&root, &code(&token, twice)), "its check 2 says again what an earlier one said");
    let fine = r#"check if operation($o), {"get"}.contains($o);"#;
    assert!(root.verify(&code(&token, fine)).is_ok(), "the name of a variable says nothing");
}

#[test]
fn a_block_with_a_context_or_a_scope_of_trust_is_refused() {
    let root = RootKey::generate();
    let check = r#"check if operation($x), {"get"}.contains($x);"#;
    let block = BlockBuilder::new().code(check).unwrap();
    let trusting = block.clone().scope(biscuit_auth::builder::Scope::Previous);
    for block in [block.context("a note".into()), trusting] {
        let what = refused(&root, &with_block(&whole(&root), block));
        assert_eq!(what, "it has a context, a scope of trust or public keys");
    }
}

#[test]
fn a_block_of_a_third_party_is_refused() {
    let root = RootKey::generate();
    let token = Biscuit::from(bytes(&whole(&root)), KeyPair::from(&root.to_text().parse().unwrap()).public()).unwrap();
    let party: PrivateKey = KeyPair::new().private();
    let block = BlockBuilder::new().code(r#"check if operation($x), {"get"}.contains($x);"#).unwrap();
    let block = token.third_party_request().unwrap().create_block(&party, block).unwrap();
    let token = token.append_third_party(party.public(), block).unwrap();
    assert_eq!(refused(&root, &text(&token.to_vec().unwrap())), "a third party has signed it");
}

#[test]
fn a_first_block_with_other_facts_is_refused() {
    let root: PrivateKey = KeyPair::new().private();
    let ours = RootKey::parse(&root.to_prefixed_string()).unwrap();
    for facts in [
        "",
        r#"token("x"); covers("operator");"#,
        r#"token("x"); covers("king"); issued(1);"#,
        r#"token("x"); covers("service", "a/b/c"); issued(1);"#,
        r#"token("x"); covers("operator"); issued(-1);"#,
        r#"token("x"); covers("operator"); issued(1); admin(true);"#,
    ] {
        let token = Biscuit::builder().code(facts).unwrap().build(&KeyPair::from(&root)).unwrap();
        let what = refused(&ours, &text(&token.to_vec().unwrap()));
        assert!(what.starts_with("its facts are not"), "{facts}: {what}");
    }
}

#[test]
fn blocks_names_and_bytes_have_bounds() {
    let root = RootKey::generate();
    let mut token = whole(&root);
    for _ in 1..BLOCKS_MAX {
        token = attenuate(&token, &operations(&["get"])).unwrap();
    }
    assert!(root.verify(&token).is_ok());
    let more = Error::TooManyBlocks { blocks: BLOCKS_MAX + 1 };
    assert_eq!(attenuate(&token, &operations(&["get"])), Err(more.clone().into()));
    let by_hand = code(&token, r#"check if operation($x), {"get"}.contains($x);"#);
    assert_eq!(root.verify(&by_hand), Err(more));

    let many: Vec<String> = (0..=NAMES_MAX).map(|n| format!("{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let attenuated = |names: &[&str]| attenuate(&whole(&root), &operations(names));
    assert!(attenuated(&many[1..]).is_ok());
    for wrong in [&many[..], &[], &[""], &["a\nb"]] {
        assert_eq!(attenuated(wrong), Err(InvalidAttenuation::Names { what: "operations" }));
    }
    let set = format!(r#"check if operation($x), {{"{}"}}.contains($x);"#, many.join("\", \""));
    assert_eq!(refused(&root, &code(&whole(&root), &set)), format!("its check 1 names more than {NAMES_MAX}"));

    let long: Vec<String> = (0..NAMES_MAX).map(|n| format!("{n:0100}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    assert!(matches!(attenuated(&long), Err(InvalidAttenuation::Token(Error::TooLong { .. }))));
    let text = format!("{PREFIX}{}", "A".repeat(2 * TOKEN_BYTES_MAX));
    assert!(matches!(root.verify(&text), Err(Error::TooLong { .. })));
    assert_eq!(attenuate(&whole(&root), &Attenuation::default()), Err(InvalidAttenuation::Nothing));
}

#[test]
fn a_sealed_token_counts_and_cannot_be_narrowed() {
    let root = RootKey::generate();
    let sealed = UnverifiedBiscuit::from(bytes(&whole(&root))).unwrap().seal().unwrap();
    let sealed = text(&sealed.to_vec().unwrap());
    assert!(root.verify(&sealed).is_ok());
    assert_eq!(attenuate(&sealed, &everything()), Err(InvalidAttenuation::Sealed));
}

/// What a request says of itself.
struct Request {
    capability: &'static str,
    name: &'static str,
    operation: &'static str,
    instance: Option<&'static str>,
    audience: Option<&'static str>,
    now: Timestamp,
}

impl Request {
    fn any(random: &mut StdRng) -> Self {
        Self {
            capability: CAPABILITIES.choose(random).unwrap(),
            name: NAMES.choose(random).unwrap(),
            operation: OPERATIONS.choose(random).unwrap(),
            instance: random.random_bool(0.5).then(|| *INSTANCES.choose(random).unwrap()),
            audience: random.random_bool(0.7).then(|| *AUDIENCES.choose(random).unwrap()),
            now: near(random),
        }
    }

    /// What the compiled rights say.
    fn left_by(&self, rights: &TokenRights) -> bool {
        let want = Want { capability: self.capability, name: self.name, operation: self.operation };
        rights.leave(&want, self.now).is_ok()
            && self.instance.is_none_or(|instance| rights.speak_for(instance).is_ok())
            && rights.meant_for(self.audience).is_ok()
    }

    /// What Biscuit's own authorizer says.
    fn authorized(&self, token: &Biscuit) -> bool {
        let limits = AuthorizerLimits { max_time: std::time::Duration::from_secs(600), ..AuthorizerLimits::default() };
        let mut facts = vec![
            fact("operation", &[string(self.operation)]),
            fact("scope", &[string(&format!("{}:{}", self.capability, self.name))]),
            fact("time", &[Term::Date(self.now.unix_ms() / 1000)]),
        ];
        facts.extend(self.instance.map(|instance| fact("instance", &[string(instance)])));
        facts.extend(self.audience.map(|audience| fact("audience", &[string(audience)])));
        let mut authorizer = AuthorizerBuilder::new().set_limits(limits).policy("allow if true").unwrap();
        for fact in facts {
            authorizer = authorizer.fact(fact).unwrap();
        }
        authorizer.build(token).unwrap().authorize().is_ok()
    }
}

const CAPABILITIES: [&str; 3] = ["state", "secret", "twin"];
const NAMES: [&str; 7] = ["", "orders", "orders/", "orders/1", "orders/12", "a \"quoted\" name", "größe:*"];
const SCOPES: [&str; 9] = [
    "state:*",
    "state:orders/*",
    "state:orders/1*",
    "state:orders/1",
    "secret:a \"quoted\" name",
    "secret:a \"quo*",
    "twin:größe:*",
    "twin:orders",
    "twin:o*",
];
const OPERATIONS: [&str; 4] = ["get", "set", "list", "a\"}.contains($x)"];
const INSTANCES: [&str; 3] = ["a", "b", "c"];
const AUDIENCES: [&str; 3] = ["east", "west", "query"];

fn near(random: &mut StdRng) -> Timestamp {
    Timestamp::from_unix_ms(NOW.unix_ms() + random.random_range(0..8000))
}

fn some<T>(random: &mut StdRng, from: &[T], make: impl Fn(&T) -> CompactString) -> Vec<CompactString> {
    let count = random.random_range(1..=from.len());
    from.choose_multiple(random, count).map(make).collect()
}

fn any_attenuation(random: &mut StdRng) -> Attenuation {
    let scope = |random: &mut StdRng| Pattern::parse(SCOPES.choose(random).unwrap()).unwrap();
    let mut by = Attenuation::default();
    if random.random_bool(0.4) {
        by.narrowing.operations = Operations::Some(some(random, &OPERATIONS, |name| (*name).into()));
    }
    if random.random_bool(0.5) {
        by.narrowing.scopes = Some((0..random.random_range(1..4)).map(|_| scope(random)).collect());
    }
    by.expires_at = random.random_bool(0.3).then(|| near(random));
    by.instances = random.random_bool(0.3).then(|| some(random, &INSTANCES, |name| (*name).into()));
    by.audiences = random.random_bool(0.2).then(|| some(random, &AUDIENCES, |name| (*name).into()));
    by
}

/// Compares so many pairs of a token and a request; answers how many were allowed.
fn compare(seed: u64, pairs: usize) -> usize {
    const REQUESTS: usize = 10;
    let mut random = StdRng::seed_from_u64(seed);
    let root = RootKey::generate();
    let public = KeyPair::from(&root.to_text().parse().unwrap()).public();
    let mut allowed = 0;
    for _ in 0..pairs.div_ceil(REQUESTS) {
        let mut token = root.mint(ID, &service(), NOW, &any_attenuation(&mut random)).unwrap();
        for _ in 0..random.random_range(0..3) {
            match attenuate(&token, &any_attenuation(&mut random)) {
                Ok(narrowed) => token = narrowed,
                Err(error) => assert_eq!(error, InvalidAttenuation::Nothing),
            }
        }
        let rights = root.verify(&token).unwrap().rights;
        let biscuit = Biscuit::from(bytes(&token), public).unwrap();
        for _ in 0..REQUESTS {
            let request = Request::any(&mut random);
            let left = request.left_by(&rights);
            assert_eq!(left, request.authorized(&biscuit), "seed {seed}: {biscuit} {rights:?}");
            allowed += usize::from(left);
        }
    }
    allowed
}

#[test]
fn compiled_rights_say_what_biscuits_own_authorizer_says() {
    let allowed = compare(1, 10_000);
    assert!((500..9_500).contains(&allowed), "{allowed} of 10,000 were allowed, so little was compared");
}

#[test]
#[ignore = "minutes: a hundred thousand pairs, for a change of the vocabulary"]
fn compiled_rights_say_what_biscuits_own_authorizer_says_a_hundred_thousand_times() {
    for seed in 2..12 {
        compare(seed, 10_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_without_a_panic(any_text in "\\PC{0,200}", any_bytes in any::<Vec<u8>>()) {
        let root = RootKey::generate();
        for text in [any_text.clone(), format!("{PREFIX}{any_text}"), text(&any_bytes)] {
            assert!(root.verify(&text).is_err());
            assert!(attenuate(&text, &everything()).is_err());
        }
    }
}
