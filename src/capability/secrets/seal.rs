//! Sealing: XChaCha20-Poly1305 with a key per twin, which is itself wrapped by the node's.
//!
//! Twin, secret and version are associated data, so a sealed value is of use nowhere else. A sealed value is its nonce of
//! 24 bytes, then the ciphertext with its tag (RFC 8439; draft-irtf-cfrg-xchacha-03). The wrapped key carries a number of
//! its form before that.

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

use crate::{model::ServiceId, twin::part::Bytes};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// The present form of a wrapped key.
const FORM: u8 = 1;

/// The node's key; prints nothing.
pub struct NodeKey(Zeroizing<[u8; KEY_BYTES]>);

/// A twin's key; prints nothing.
pub struct TwinKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why something does not unseal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was sealed with another key, for something else, or was changed.
    #[error("what is sealed cannot be opened with this node's key: it was sealed with another one, or was changed")]
    Sealed,
    /// A later version of this program wrote it.
    #[error("the twin's key is of a form that this program does not know; use the later one that wrote it")]
    Form,
}

impl NodeKey {
    /// Takes 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// Draws a key, and its digits.
    pub fn draw() -> (Self, Zeroizing<String>) {
        let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
        let mut digits = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for digit in key.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            digits.push(char::from_digit(digit.into(), 16).expect("four bits are one digit"));
        }
        (Self(key), digits)
    }

    /// Draws a key for a twin, and wraps it.
    pub fn make(&self, service: &ServiceId) -> (TwinKey, Bytes) {
        let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
        let mut wrapped = vec![FORM];
        wrapped.extend(sealed(&self.0, &*key, &about(service, "", 0)));
        (TwinKey(key), Bytes(wrapped))
    }

    /// Unwraps a twin's key.
    pub fn unwrap(&self, service: &ServiceId, wrapped: &Bytes) -> Result<TwinKey, Error> {
        let (form, wrapped) = wrapped.0.split_first().ok_or(Error::Sealed)?;
        if *form != FORM {
            return Err(Error::Form);
        }
        let plain = opened(&self.0, wrapped, &about(service, "", 0))?;
        let key: [u8; KEY_BYTES] = plain.as_slice().try_into().map_err(|_| Error::Sealed)?;
        Ok(TwinKey(Zeroizing::new(key)))
    }
}

impl TwinKey {
    /// Seals a version of a secret.
    pub fn seal(&self, service: &ServiceId, secret: &str, version: u64, value: &[u8]) -> Bytes {
        Bytes(sealed(&self.0, value, &about(service, secret, version)))
    }

    /// Opens a version of a secret.
    pub fn open(
        &self,
        service: &ServiceId,
        secret: &str,
        version: u64,
        value: &Bytes,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        opened(&self.0, &value.0, &about(service, secret, version))
    }
}

/// What a sealed value is bound to; lengths keep the parts apart.
fn about(service: &ServiceId, secret: &str, version: u64) -> Vec<u8> {
    let mut about = Vec::with_capacity(service.as_str().len() + secret.len() + 24);
    for text in [service.as_str(), secret] {
        about.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        about.extend(text.as_bytes());
    }
    about.extend(version.to_le_bytes());
    about
}

fn sealed(key: &[u8; KEY_BYTES], plain: &[u8], about: &[u8]) -> Vec<u8> {
    let nonce = rand::random::<[u8; NONCE_BYTES]>();
    let cipher = XChaCha20Poly1305::new(Key::from_slice(key));
    let sealed = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: about });
    let mut whole = nonce.to_vec();
    whole.extend(sealed.expect("values are far below the cipher's limit of 256 GiB"));
    whole
}

fn opened(key: &[u8; KEY_BYTES], sealed: &[u8], about: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(Error::Sealed)?;
    let cipher = XChaCha20Poly1305::new(Key::from_slice(key));
    let plain = cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: about });
    plain.map(Zeroizing::new).map_err(|_| Error::Sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceId {
        ServiceId::parse(name).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_there_and_nowhere_else() {
        let (node, digits) = NodeKey::draw();
        let (orders, cart) = (service("shop/orders"), service("shop/cart"));
        let (key, wrapped) = node.make(&orders);
        let value = key.seal(&orders, "db", 3, b"hunter2");
        let again = NodeKey::parse(&digits).unwrap().unwrap(&orders, &wrapped).unwrap();
        assert_eq!(again.open(&orders, "db", 3, &value).unwrap().as_slice(), b"hunter2");
        assert!(again.open(&orders, "db", 2, &value).is_err());
        assert!(again.open(&orders, "d", 3, &value).is_err());
        assert!(again.open(&cart, "db", 3, &value).is_err());
        assert!(node.unwrap(&cart, &wrapped).is_err());
        assert!(NodeKey::draw().0.unwrap(&orders, &wrapped).is_err());
    }

    #[test]
    fn a_sealed_value_that_was_changed_anywhere_does_not_open() {
        let (node, _) = NodeKey::draw();
        let orders = service("shop/orders");
        let (key, wrapped) = node.make(&orders);
        let value = key.seal(&orders, "db", 1, b"hunter2");
        for at in 0..value.0.len() {
            let mut changed = value.clone();
            changed.0[at] ^= 1;
            assert_eq!(key.open(&orders, "db", 1, &changed), Err(Error::Sealed), "{at}");
        }
        for at in 0..wrapped.0.len() {
            let mut changed = wrapped.clone();
            changed.0[at] ^= 1;
            assert!(node.unwrap(&orders, &changed).is_err(), "{at}");
        }
        assert_eq!(key.open(&orders, "db", 1, &Bytes(Vec::new())), Err(Error::Sealed));
    }

    #[test]
    fn a_node_key_is_64_digits() {
        assert!(NodeKey::parse(&"ab".repeat(32)).is_some());
        for bad in ["", "ab", &"ab".repeat(33), &"xy".repeat(32), &"é".repeat(32)] {
            assert!(NodeKey::parse(bad).is_none(), "{bad}");
        }
    }
}
