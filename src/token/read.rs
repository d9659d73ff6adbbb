//! What a token says, block by block.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use biscuit_auth::{
    builder::{self, Convert as _},
    datalog::SymbolTable,
    error::Format,
    format::{convert::proto_block_to_token_block, schema},
};
use biscuit_prost::Message as _;
use compact_str::CompactString;

use super::{BLOCKS_MAX, Error, PREFIX, TOKEN_BYTES_MAX, words};
use crate::{
    model::rights::{Attenuation, TokenRights},
    twin::keyring::Covers,
};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which key it is.
    pub id: CompactString,
    /// What that key covers.
    pub covers: Covers,
    /// What is left of it.
    pub rights: TokenRights,
}

/// Says what a token says, without asking whether anybody signed it.
pub fn show(text: &str) -> Result<Said, Error> {
    read(&decode(text)?)
}

/// The bytes of a token.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let code = text.strip_prefix(PREFIX).ok_or(Error::Form)?;
    // Before memory is spent on it.
    let bytes = code.len() / 4 * 3;
    if bytes > TOKEN_BYTES_MAX {
        return Err(Error::TooLong { bytes });
    }
    URL_SAFE_NO_PAD.decode(code).map_err(|_| Error::Form)
}

/// The text of a token.
pub(super) fn encode(bytes: &[u8]) -> Result<String, Error> {
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(Error::TooLong { bytes: bytes.len() });
    }
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Reads the blocks of a token whose signatures somebody else has verified, or nobody.
pub(super) fn read(bytes: &[u8]) -> Result<Said, Error> {
    let token = schema::Biscuit::decode(bytes).map_err(|error| Error::NotOurs { cause: error.to_string() })?;
    let blocks = 1 + token.blocks.len();
    if blocks > BLOCKS_MAX {
        return Err(Error::TooManyBlocks { blocks });
    }
    let mut symbols = SymbolTable::new();
    let foreign = |block| move |what| Error::Foreign { block, what };
    let (facts, first) = block(&token.authority, &mut symbols).map_err(foreign(0))?;
    let (id, covers, issued_at) = words::read_facts(&facts)
        .ok_or_else(|| foreign(0)("its facts are not token, covers and issued as 'twin key new' writes them".into()))?;
    let mut rights = TokenRights { issued_at, ..TokenRights::default() };
    rights.narrow(first);
    for (at, signed) in token.blocks.iter().enumerate() {
        let (facts, attenuation) = block(signed, &mut symbols).map_err(foreign(at + 1))?;
        if !facts.is_empty() {
            return Err(foreign(at + 1)("it states facts, and only the first block may".into()));
        }
        rights.narrow(attenuation);
    }
    Ok(Said { id, covers, rights })
}

/// The facts of a block, and what its checks take. Symbols go on from block to block.
fn block(signed: &schema::SignedBlock, symbols: &mut SymbolTable) -> Result<(Vec<builder::Fact>, Attenuation), String> {
    if signed.external_signature.is_some() {
        return Err("a third party has signed it".into());
    }
    let encoded = schema::Block::decode(&signed.block[..]).map_err(|error| error.to_string())?;
    // What this version of the format does not know would be skipped by decoding, and is gone when it is encoded again.
    if encoded.encode_to_vec() != signed.block {
        return Err("it is written in another way than the format says, or in a newer one".into());
    }
    let plain = |error: Format| error.to_string();
    let block = proto_block_to_token_block(&encoded, None).map_err(plain)?;
    if !block.rules.is_empty() {
        return Err("it has rules".into());
    }
    if block.context.is_some() || !block.scopes.is_empty() || !encoded.public_keys.is_empty() {
        return Err("it has a context, a scope of trust or public keys".into());
    }
    symbols.extend(&block.symbols).map_err(plain)?;
    let facts = block.facts.iter().map(|fact| builder::Fact::convert_from(fact, symbols));
    let facts = facts.collect::<Result<_, _>>().map_err(plain)?;
    let checks = block.checks.iter().map(|check| builder::Check::convert_from(check, symbols));
    let checks = checks.collect::<Result<Vec<_>, _>>().map_err(plain)?;
    Ok((facts, words::read_checks(&checks)?))
}
