//! Takes something away from a token, without any secret but the token itself.

use biscuit_auth::{BlockBuilder, UnverifiedBiscuit, error};

use super::{
    BLOCKS_MAX, Error, NAME_BYTES_MAX, NAMES_MAX,
    read::{decode, encode, read},
    root::not_ours,
    words,
};
use crate::model::{Timestamp, rights::Attenuation, scope::Operations};

/// Why a token cannot be narrowed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttenuation {
    /// The token, or what would become of it.
    #[error(transparent)]
    Token(#[from] Error),
    /// Nothing would be taken.
    #[error("nothing is taken: name operations, scopes, an expiry, instances or audiences")]
    Nothing,
    /// A list that is none.
    #[error("the {what}: between 1 and {NAMES_MAX} names of 1 to {NAME_BYTES_MAX} bytes without control characters")]
    Names {
        /// Which list.
        what: &'static str,
    },
    /// Its holder has sealed it.
    #[error("the token is sealed: nobody can narrow it any more")]
    Sealed,
    /// An expiry before 1970-01-01T00:00:01Z.
    #[error("the token would have expired in 1970: give a time to come")]
    Expiry,
}

/// Makes a token that reaches less far. It needs no node; the given token counts as before.
///
/// An expiry counts in whole seconds, rounded down.
pub fn attenuate(token: &str, by: &Attenuation) -> Result<String, InvalidAttenuation> {
    check(by)?;
    let bytes = decode(token)?;
    read(&bytes)?;
    let token = UnverifiedBiscuit::from(&bytes).map_err(not_ours)?;
    if token.block_count() >= BLOCKS_MAX {
        return Err(Error::TooManyBlocks { blocks: token.block_count() + 1 }.into());
    }
    let mut block = BlockBuilder::new();
    for check in words::checks(by) {
        block = block.check(check).map_err(not_ours)?;
    }
    match token.append(block).and_then(|token| token.to_vec()) {
        Ok(narrowed) => Ok(encode(&narrowed)?),
        Err(error::Token::AlreadySealed) => Err(InvalidAttenuation::Sealed),
        Err(error) => Err(not_ours(error).into()),
    }
}

fn check(by: &Attenuation) -> Result<(), InvalidAttenuation> {
    if *by == Attenuation::default() {
        return Err(InvalidAttenuation::Nothing);
    }
    let operations = match &by.narrowing.operations {
        Operations::All => None,
        Operations::Some(operations) => Some(operations),
    };
    let lists =
        [("operations", operations), ("instances", by.instances.as_ref()), ("audiences", by.audiences.as_ref())];
    for (what, names) in lists {
        let good = names.is_none_or(|names| is_list(names.len()) && names.iter().all(|name| words::is_name(name)));
        if !good {
            return Err(InvalidAttenuation::Names { what });
        }
    }
    if by.narrowing.scopes.as_ref().is_some_and(|scopes| !is_list(scopes.len())) {
        return Err(InvalidAttenuation::Names { what: "scopes" });
    }
    if by.expires_at.is_some_and(|at| at < Timestamp::from_unix_ms(1000)) {
        return Err(InvalidAttenuation::Expiry);
    }
    Ok(())
}

fn is_list(len: usize) -> bool {
    (1..=NAMES_MAX).contains(&len)
}
