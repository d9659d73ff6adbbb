//! Secrets on their way in and out: sealed before they reach a twin, opened after they left it.

use zeroize::Zeroizing;

use super::Server;
use crate::{
    capability::secrets::{Compare, Get, Prepare, Put, Rotation, Sealed, seal},
    model::{Header, RequestKey, ServiceId},
    twin::{Failure, Rejection},
};

/// How often a new version is sealed anew, or read, because somebody else was faster.
const TRIES_MAX: u32 = 8;

impl Server {
    /// Sets a new version of a secret; answers with its number.
    pub async fn put_secret(
        &self,
        service: &ServiceId,
        secret: &str,
        value: Zeroizing<Vec<u8>>,
        rotation: Rotation,
        header: Header,
    ) -> Result<u64, Failure> {
        for _ in 0..TRIES_MAX {
            let prepare = Prepare { secret: secret.into(), reads: false };
            let prepared = self.call(service, prepare, header.clone(), None).await?;
            let (key, wrapped) = if prepared.key.0.is_empty() {
                self.seal.make(service)
            } else {
                (self.seal.unwrap(service, &prepared.key).map_err(unsealed)?, prepared.key)
            };
            let version = prepared.version + 1;
            let value = key.seal(service, secret, version, &value);
            let put = Put { secret: secret.into(), version, value, key: wrapped, rotation };
            let none: Option<RequestKey> = None;
            if self.call(service, put, header.clone(), none).await? {
                return Ok(version);
            }
        }
        Err(Rejection::conflict("the secret is being set by others all the time; try again").into())
    }

    /// Sets a new version of a secret unless the newest one is the same; answers with the number of the newest.
    pub async fn put_other_secret(
        &self,
        service: &ServiceId,
        secret: &str,
        value: Zeroizing<Vec<u8>>,
        rotation: Rotation,
        header: Header,
    ) -> Result<u64, Failure> {
        let prepare = Prepare { secret: secret.into(), reads: false };
        let version = self.call(service, prepare, header.clone(), None).await?.version;
        let compare = Compare { secret: secret.into(), version };
        if version > 0
            && let Some(Sealed { version, value: sealed, key, .. }) =
                self.call(service, compare, header.clone(), None).await?
        {
            let key = self.seal.unwrap(service, &key).map_err(unsealed)?;
            if *key.open(service, secret, version, &sealed).map_err(unsealed)? == *value {
                return Ok(version);
            }
        }
        self.put_secret(service, secret, value, rotation, header).await
    }

    /// Reads a version of a secret, the newest if none is named.
    pub async fn read_secret(
        &self,
        service: &ServiceId,
        secret: &str,
        version: Option<u64>,
        header: Header,
    ) -> Result<(u64, Zeroizing<Vec<u8>>), Failure> {
        let Sealed { secret, version, value, key } = match version {
            Some(version) => self.call(service, Get { secret: secret.into(), version }, header, None).await?,
            None => self.newest_secret(service, secret, header).await?,
        };
        let key = self.seal.unwrap(service, &key).map_err(unsealed)?;
        Ok((version, key.open(service, &secret, version, &value).map_err(unsealed)?))
    }

    /// The newest version, sealed: the one that was the newest may be gone when it is asked for.
    async fn newest_secret(&self, service: &ServiceId, secret: &str, header: Header) -> Result<Sealed, Failure> {
        let mut missed = None;
        for _ in 0..TRIES_MAX {
            let prepare = Prepare { secret: secret.into(), reads: true };
            let version = self.call(service, prepare, header.clone(), None).await?.version.max(1);
            let get = Get { secret: secret.into(), version };
            match self.call(service, get, header.clone(), None).await {
                // If it is still the newest and still not there, there is none.
                Err(Failure::Rejected(Rejection::NotFound { .. })) if missed != Some(version) => missed = Some(version),
                answer => return answer,
            }
        }
        Err(Rejection::conflict("the secret is being set by others all the time; try again").into())
    }
}

fn unsealed(error: seal::Error) -> Failure {
    Rejection::conflict(error.to_string()).into()
}
