//! API keys as tokens: Biscuits (<https://doc.biscuitsec.org/reference/specifications>, version 3) that say a little
//! and are narrowed by whoever holds them, without asking a node.
//!
//! A token is `twk_` and URL-safe base64 without padding. Its first block, signed by the node's [`RootKey`], says which
//! key it is, what that covers, and when it was issued. Each further block takes something away: an
//! [`Attenuation`](crate::model::rights::Attenuation). Whatever is not exactly this vocabulary is refused with the
//! reason, so no Datalog is ever evaluated: [`RootKey::verify`] reads the blocks into
//! [`TokenRights`](crate::model::TokenRights), and `docs/formats.md` shows them.
//!
//! Knows nothing of revocation, which is the keyring's, nor of any clock: an expired token is read like any other.

mod attenuate;
mod read;
mod root;
mod words;

#[cfg(test)]
mod tests;

pub use self::{
    attenuate::{InvalidAttenuation, attenuate},
    read::{Said, show},
    root::{InvalidRootKey, RootKey},
};

/// Every token starts so, which lets secret scanners find leaked ones.
pub const PREFIX: &str = "twk_";
/// Longest token, in bytes before they are written in base64.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Most blocks of a token, the first one included.
pub const BLOCKS_MAX: usize = 16;
/// Most operations, scopes, instances or audiences that one block names.
pub const NAMES_MAX: usize = 64;
/// Longest operation, instance or audience, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Why a text is no token that counts here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not even the form of one.
    #[error("a token is 'twk_' and URL-safe base64 without padding, on one line; 'twin key new' makes one")]
    Form,
    /// Too long.
    #[error("a token has at most {TOKEN_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How long it is, at least.
        bytes: usize,
    },
    /// Too many blocks.
    #[error("a token has at most {BLOCKS_MAX} blocks, this one has {blocks}")]
    TooManyBlocks {
        /// How many it has.
        blocks: usize,
    },
    /// No token of this root key.
    #[error("the token is damaged, or another root key has signed it: {cause}")]
    NotOurs {
        /// What does not hold.
        cause: String,
    },
    /// It says what no token of ours says.
    #[error("block {block} of the token says what this node does not take: {what}")]
    Foreign {
        /// Which block; 0 is the first.
        block: usize,
        /// What it says.
        what: String,
    },
}
