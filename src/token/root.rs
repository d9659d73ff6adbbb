//! The key that signs the first block of every token of a node.

use std::fmt;

use biscuit_auth::{Algorithm, Biscuit, KeyPair, PrivateKey, error};

use super::{
    Error,
    read::{Said, decode, encode, read},
    words,
};
use crate::{
    model::{Timestamp, rights::Attenuation},
    twin::keyring::Covers,
};

/// An Ed25519 key pair that makes tokens and knows its own again; prints nothing of itself.
pub struct RootKey(KeyPair);

/// A text is no root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a root key is one line: 'ed25519-private/' and 64 hexadecimal digits")]
pub struct InvalidRootKey;

impl RootKey {
    /// Draws a new one from the system's generator.
    pub fn generate() -> Self {
        Self(KeyPair::new_with_algorithm(Algorithm::Ed25519))
    }

    /// Reads what [`RootKey::to_text`] wrote.
    pub fn parse(text: &str) -> Result<Self, InvalidRootKey> {
        match text.trim().parse() {
            Ok(key @ PrivateKey::Ed25519(_)) => Ok(Self(KeyPair::from(&key))),
            Ok(PrivateKey::P256(_)) | Err(_) => Err(InvalidRootKey),
        }
    }

    /// The key itself, as it is kept in a file that only its owner reads.
    pub fn to_text(&self) -> String {
        self.0.private().to_prefixed_string()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`Error::TooLong`] if too much is taken from it.
    pub fn mint(
        &self,
        id: &str,
        covers: &Covers,
        issued_at: Timestamp,
        attenuation: &Attenuation,
    ) -> Result<String, Error> {
        let mut token = Biscuit::builder();
        for fact in words::facts(id, covers, issued_at) {
            token = token.fact(fact).map_err(not_ours)?;
        }
        for check in words::checks(attenuation) {
            token = token.check(check).map_err(not_ours)?;
        }
        let bytes = token.build(&self.0).and_then(|token| token.to_vec()).map_err(not_ours)?;
        encode(&bytes)
    }

    /// Verifies every signature of a token, and reads what it says.
    pub fn verify(&self, text: &str) -> Result<Said, Error> {
        let bytes = decode(text)?;
        // First, since it bounds how many signatures there are to verify.
        let said = read(&bytes);
        if let Err(error @ (Error::TooManyBlocks { .. } | Error::NotOurs { .. })) = said {
            return Err(error);
        }
        Biscuit::from(&bytes, self.0.public()).map_err(not_ours)?;
        said
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn not_ours(error: error::Token) -> Error {
    let cause = if let error::Token::Format(format) = &error { format.to_string() } else { error.to_string() };
    Error::NotOurs { cause }
}
