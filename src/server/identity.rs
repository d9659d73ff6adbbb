//! Who sends a request, and how far that reaches: by the kind of key, and by what a token leaves of that.

use std::sync::Arc;

use super::problem::{Code, Problem};
use crate::model::{Header, Principal, ServiceId, Timestamp, TokenRights, rights::Narrowed, scope::Want};

/// Who sends a request; established once, at the door.
#[derive(Clone, Debug)]
pub struct Identity {
    /// On whose behalf.
    pub principal: Arc<Principal>,
    /// What the token leaves of its rights; all of them if it came without one.
    pub rights: Option<Arc<TokenRights>>,
}

/// What a request wants of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send telemetry.
    Observe,
    /// Read the twin, its commands, its journal.
    Read,
    /// Follow its events.
    Watch,
    /// Act as the service: report features, take, acknowledge and finish commands.
    Serve,
    /// Create it, change what is desired of it, its attributes, its command definitions.
    Set,
    /// Change what its service may do.
    Grant,
    /// Send it commands, and cancel them.
    Command,
    /// Remove it.
    Remove,
}

impl Wish {
    /// The capability and operation by which scopes name it.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Observe => ("telemetry", "write"),
            Self::Read => ("twin", "get"),
            Self::Watch => ("twin", "watch"),
            Self::Serve => ("twin", "serve"),
            Self::Set => ("twin", "set"),
            Self::Grant => ("twin", "grant"),
            Self::Command => ("twin", "command"),
            Self::Remove => ("twin", "remove"),
        }
    }

    /// Whether a service may do it to itself.
    const fn is_own(self) -> bool {
        match self {
            Self::Observe | Self::Read | Self::Watch | Self::Serve => true,
            Self::Set | Self::Grant | Self::Command | Self::Remove => false,
        }
    }
}

impl Identity {
    /// Who needs no token.
    pub fn without_token(principal: Principal) -> Self {
        Self { principal: Arc::new(principal), rights: None }
    }

    /// A header that travels on its behalf.
    pub fn header(&self) -> Header {
        let header = Header::default().with_principal(Principal::clone(&self.principal));
        match &self.rights {
            Some(rights) => header.with_rights(Arc::clone(rights)),
            None => header,
        }
    }

    /// Refuses unless it may do this to `service`, of which `part` is meant, such as `/attributes`; all of it if that
    /// is empty. Equal for twins that exist and those that do not.
    pub fn may(&self, wish: Wish, service: &ServiceId, part: &str, now: Timestamp) -> Result<(), Problem> {
        let allowed = match &*self.principal {
            Principal::Host | Principal::Runtime | Principal::Operator { .. } => true,
            Principal::Ingest { namespace, .. } => wish == Wish::Observe && service.namespace() == &**namespace,
            Principal::Service { service: own, .. } => wish.is_own() && own == service,
            Principal::Twin { .. } => false,
        };
        if !allowed {
            return Err(Problem::new(Code::Denied, refusal(&self.principal)));
        }
        let (capability, operation) = wish.names();
        if part.is_empty() {
            return self.left(capability, service.as_str(), operation, now);
        }
        self.left(capability, &format!("{service}{part}"), operation, now)
    }

    /// Refuses whoever is neither an operator nor `service` itself. Equal for twins that exist and those that do not.
    pub fn reaches(&self, service: &ServiceId) -> Result<(), Problem> {
        let reached = match &*self.principal {
            Principal::Host | Principal::Runtime | Principal::Operator { .. } => true,
            Principal::Service { service: own, .. } => own == service,
            Principal::Ingest { .. } | Principal::Twin { .. } => false,
        };
        if reached { Ok(()) } else { Err(Problem::new(Code::Denied, refusal(&self.principal))) }
    }

    /// Refuses whoever is no operator, and an operator whose token does not leave this.
    pub fn operates(&self, capability: &str, name: &str, operation: &str, now: Timestamp) -> Result<(), Problem> {
        match &*self.principal {
            Principal::Host | Principal::Runtime | Principal::Operator { .. } => {
                self.left(capability, name, operation, now)
            }
            Principal::Ingest { .. } | Principal::Service { .. } | Principal::Twin { .. } => {
                Err(Problem::new(Code::Denied, "this takes an operator key"))
            }
        }
    }

    /// Whether it matters what a request is about, or only who sends it.
    pub fn is_narrowed(&self) -> bool {
        self.rights.as_ref().is_some_and(|rights| !rights.narrowings.is_empty())
    }

    /// Refuses what the token does not leave.
    pub fn left(&self, capability: &str, name: &str, operation: &str, now: Timestamp) -> Result<(), Problem> {
        let Some(rights) = &self.rights else { return Ok(()) };
        let want = Want { capability, name, operation };
        rights.leave(&want, now).map_err(|narrowed| match narrowed {
            Narrowed::Expired(_) => narrowed.into(),
            Narrowed::Scope | Narrowed::Instance | Narrowed::Audience => {
                Problem::new(Code::Denied, format!("{narrowed}; this takes '{operation}' on '{capability}:{name}'"))
            }
        })
    }

    /// Refuses to speak for an instance that the token does not leave.
    pub fn speak_for(&self, instance: &str) -> Result<(), Problem> {
        self.rights.as_ref().map_or(Ok(()), |rights| Ok(rights.speak_for(instance)?))
    }

    /// Refuses to make keys with a token that was narrowed: a new key would not be as narrow.
    pub fn makes_keys(&self) -> Result<(), Problem> {
        if self.rights.as_ref().is_none_or(|rights| rights.is_whole()) {
            return Ok(());
        }
        Err(Problem::new(Code::Denied, "the token was narrowed, and a new key would not be; use one that was not"))
    }
}

impl From<Narrowed> for Problem {
    fn from(narrowed: Narrowed) -> Self {
        let code = match narrowed {
            Narrowed::Expired(_) => Code::KeyExpired,
            Narrowed::Scope | Narrowed::Instance => Code::Denied,
            Narrowed::Audience => Code::KeyInvalid,
        };
        Self::new(code, narrowed.to_string())
    }
}

fn refusal(principal: &Principal) -> String {
    match principal {
        Principal::Ingest { namespace, .. } => {
            format!("this ingest key covers telemetry for services in namespace '{namespace}' and nothing else")
        }
        Principal::Service { service, .. } => format!("this service key covers what '{service}' itself may do"),
        Principal::Host | Principal::Runtime | Principal::Operator { .. } | Principal::Twin { .. } => {
            "not allowed".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        rights::{Attenuation, Narrowing},
        scope::{Operations, Pattern},
    };

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

    fn id(text: &str) -> ServiceId {
        ServiceId::parse(text).unwrap()
    }

    fn narrowed(operations: &[&str], scopes: &[&str]) -> Identity {
        let mut rights = TokenRights::default();
        let operations = Operations::Some(operations.iter().map(|&name| name.into()).collect());
        let scopes = Some(scopes.iter().map(|scope| Pattern::parse(scope).unwrap()).collect());
        rights.narrow(Attenuation { narrowing: Narrowing { operations, scopes }, ..Attenuation::default() });
        let principal = Arc::new(Principal::Operator { key_id: "k".into() });
        Identity { principal, rights: Some(Arc::new(rights)) }
    }

    #[test]
    fn a_service_key_reaches_its_own_twin_only() {
        let (own, other) = (id("shop/orders"), id("shop/cart"));
        let service = Identity::without_token(Principal::Service { key_id: "k".into(), service: own.clone() });
        assert!(service.may(Wish::Serve, &own, "", NOW).is_ok());
        for wish in [Wish::Set, Wish::Grant, Wish::Command, Wish::Remove] {
            assert!(service.may(wish, &own, "", NOW).is_err(), "{wish:?}");
        }
        assert_eq!(service.may(Wish::Read, &other, "", NOW).unwrap_err().code, Code::Denied);
        let ingest = Identity::without_token(Principal::Ingest { key_id: "k".into(), namespace: "shop".into() });
        assert!(ingest.may(Wish::Observe, &other, "", NOW).is_ok());
        assert!(ingest.may(Wish::Read, &other, "", NOW).is_err());
        assert!(ingest.operates("node", "keys", "list", NOW).is_err());
    }

    #[test]
    fn a_narrowed_token_reaches_what_its_narrowings_leave() {
        let token = narrowed(&["get", "watch"], &["twin:shop/orders", "twin:shop/cart/*"]);
        assert!(token.may(Wish::Read, &id("shop/orders"), "", NOW).is_ok());
        assert!(token.may(Wish::Watch, &id("shop/cart"), "/events", NOW).is_ok());
        let refused = token.may(Wish::Read, &id("shop/orders"), "/attributes", NOW).unwrap_err();
        assert_eq!(refused.code, Code::Denied);
        assert!(refused.detail.ends_with("this takes 'get' on 'twin:shop/orders/attributes'"), "{}", refused.detail);
        assert!(token.may(Wish::Remove, &id("shop/orders"), "", NOW).is_err());
        assert!(token.operates("node", "metrics", "get", NOW).is_err());
        assert!(token.makes_keys().is_err());
        assert_eq!(token.header().rights(), token.rights.as_ref(), "the turn sees what is left");
    }
}
