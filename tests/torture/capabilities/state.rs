//! Writers of state: alone under a key, racing for one, and several keys at once.

use std::{collections::BTreeSet, sync::Mutex};

use reqwest::Method;
use serde_json::{Value, json};

use super::node::{Reached, etag, is_busy};

const SERVICE: &str = "shop/orders";
const STORE: &str = "/api/v1/twins/shop/orders/state/statestore";
/// Keys of one transaction.
const KEYS: usize = 8;
/// Every so many transactions one is sent that must be refused.
const POISON_EVERY: u64 = 4;

/// Reads a key: ETag and value, both 0 if it is not there.
async fn read(node: &Reached, key: &str) -> Option<(u64, u64)> {
    let path = format!("{STORE}/{key}");
    loop {
        let (status, headers, body) = node.send(SERVICE, Method::GET, &path, &[], String::new()).await?;
        match status {
            200 => return Some((etag(&headers), String::from_utf8(body).unwrap().parse().unwrap())),
            404 => return Some((0, 0)),
            busy if is_busy(busy) => tokio::task::yield_now().await,
            other => panic!("{key}: {other} {}", String::from_utf8_lossy(&body)),
        }
    }
}

/// Writes a number under a key that was written `before` times.
async fn write(node: &Reached, key: &str, before: u64, number: u64) -> Option<(u16, Option<u64>)> {
    let (path, expected) = (format!("{STORE}/{key}"), format!("\"{before}\""));
    let condition = if before == 0 { ("if-none-match", "*") } else { ("if-match", expected.as_str()) };
    let (status, headers, body) = node.send(SERVICE, Method::PUT, &path, &[condition], number.to_string()).await?;
    assert!([204, 412].contains(&status) || is_busy(status), "{key}: {status} {}", String::from_utf8_lossy(&body));
    Some((status, (status == 204).then(|| etag(&headers))))
}

/// The only one that writes its key: each number is the key's next ETag.
pub(crate) struct Single {
    key: String,
    acknowledged: u64,
    /// Whether the next number was sent without an answer.
    open: bool,
}

impl Single {
    pub(crate) fn new(number: u64) -> Self {
        Self { key: format!("single-{number}"), acknowledged: 0, open: false }
    }

    pub(crate) async fn compare(&mut self, node: &Reached) {
        let (etag, value) = read(node, &self.key).await.expect("the node answers");
        assert_eq!(etag, value, "{}: a value and its ETag belong together", self.key);
        let most = self.acknowledged + u64::from(self.open);
        let range = self.acknowledged..=most;
        assert!(range.contains(&etag), "{}: at {etag}, acknowledged and sent were {range:?}", self.key);
        (self.acknowledged, self.open) = (etag, false);
    }

    pub(crate) async fn work(&mut self, node: &Reached) {
        loop {
            self.open = true;
            let next = self.acknowledged + 1;
            let Some((status, made)) = write(node, &self.key, self.acknowledged, next).await else { return };
            self.open = false;
            assert_ne!(status, 412, "{}: nobody else writes it", self.key);
            if let Some(made) = made {
                assert_eq!(made, next, "{}: an ETag counts the writes", self.key);
                self.acknowledged = made;
                node.acknowledged();
            }
        }
    }
}

/// A key for which several race: each write names the ETag it read, and one of them wins.
#[derive(Default)]
pub(crate) struct Shared(Mutex<BTreeSet<u64>>);

impl Shared {
    const KEY: &str = "shared";

    fn newest(&self) -> u64 {
        self.0.lock().unwrap().last().copied().unwrap_or(0)
    }

    pub(crate) async fn read(&self, node: &Reached) -> Option<u64> {
        let before = self.newest();
        let (etag, value) = read(node, Self::KEY).await?;
        assert_eq!(etag, value, "a value and its ETag belong together");
        assert!(etag >= before, "an ETag went back: {before} was acknowledged, {etag} is read");
        Some(etag)
    }

    pub(crate) async fn work(&self, node: &Reached) {
        while let Some(before) = self.read(node).await {
            let Some((_, made)) = write(node, Self::KEY, before, before + 1).await else { return };
            if let Some(made) = made {
                assert_eq!(made, before + 1, "an ETag counts the writes");
                assert!(self.0.lock().unwrap().insert(made), "two writers were both told that they made {made}");
                node.acknowledged();
            }
        }
    }
}

/// Writes one number under several keys at once.
pub(crate) struct Transactions {
    keys: Vec<String>,
    acknowledged: u64,
    open: bool,
}

impl Transactions {
    pub(crate) fn new(number: u64) -> Self {
        let keys = (0..KEYS).map(|key| format!("together-{number}-{key}")).collect();
        Self { keys, acknowledged: 0, open: false }
    }

    /// All keys as they are in one turn: their common number.
    async fn read(&self, node: &Reached) -> Option<u64> {
        let body = json!({ "keys": self.keys }).to_string();
        let path = "/v1.0/state/statestore/bulk";
        loop {
            let (status, _, answer) = node.send(SERVICE, Method::POST, path, &[], body.clone()).await?;
            if is_busy(status) {
                tokio::task::yield_now().await;
                continue;
            }
            let items: Vec<Value> = serde_json::from_slice(&answer).unwrap();
            let mut seen = items.iter().map(|item| {
                let etag = item["etag"].as_str().map_or(0, |etag| etag.parse().unwrap());
                assert_eq!(item["data"].as_u64().unwrap_or(0), etag, "{item}: a value and its ETag belong together");
                etag
            });
            let first = seen.next().unwrap();
            assert!(items.len() == KEYS && seen.all(|other| other == first), "half of a transaction: {items:?}");
            return Some(first);
        }
    }

    pub(crate) async fn compare(&mut self, node: &Reached) {
        let found = self.read(node).await.expect("the node answers");
        let range = self.acknowledged..=self.acknowledged + u64::from(self.open);
        assert!(range.contains(&found), "{}: at {found}, acknowledged and sent were {range:?}", self.keys[0]);
        (self.acknowledged, self.open) = (found, false);
    }

    /// Sends one transaction whose last key names this ETag, if it was ever written.
    async fn transact(&self, node: &Reached, number: u64, last_etag: u64) -> Option<u16> {
        let condition = |key: usize| if key + 1 == KEYS { last_etag } else { self.acknowledged };
        let steps = self.keys.iter().enumerate().map(|(at, key)| match condition(at) {
            0 => json!({"operation": "set", "key": key, "value": number, "absent": true}),
            etag => json!({"operation": "set", "key": key, "value": number, "etag": etag}),
        });
        let body = json!({ "operations": steps.collect::<Vec<_>>() }).to_string();
        let json = [("content-type", "application/json")];
        let (status, _, answer) = node.send(SERVICE, Method::POST, STORE, &json, body).await?;
        assert!([200, 412].contains(&status) || is_busy(status), "{status} {}", String::from_utf8_lossy(&answer));
        Some(status)
    }

    pub(crate) async fn work(&mut self, node: &Reached) {
        for turn in 1_u64.. {
            if turn.is_multiple_of(POISON_EVERY) {
                // Its last key refuses it, so that all of it is refused.
                let Some(status) = self.transact(node, u64::MAX, self.acknowledged + 7).await else { return };
                assert_ne!(status, 200, "a transaction with a wrong ETag was done");
            }
            self.open = true;
            let Some(status) = self.transact(node, self.acknowledged + 1, self.acknowledged).await else { return };
            self.open = false;
            assert_ne!(status, 412, "{}: nobody else writes it", self.keys[0]);
            if status == 200 {
                self.acknowledged += 1;
                node.acknowledged();
            }
            let Some(found) = self.read(node).await else { return };
            assert_eq!(found, self.acknowledged, "{}: what was acknowledged is read", self.keys[0]);
        }
    }
}
