//! States, as the SDK's own examples use them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dapr::client::{Etag, StateItem, StateOptions};
use tonic::Code;

use crate::{Dapr, Outcome, name_of, ok, refused};

const TTL: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
const FIRST_WRITE: StateOptions = StateOptions { concurrency: 1, consistency: 0 };
const LAST_WRITE: StateOptions = StateOptions { concurrency: 2, consistency: 0 };

pub(crate) async fn check(dapr: &mut Dapr) -> Outcome {
    let store = name_of("state");
    one_value(dapr, &store).await?;
    etags(dapr, &store).await?;
    time_to_live(dapr, &store).await?;
    many(dapr, &store).await?;
    errors(dapr).await;
    Ok(())
}

async fn one_value(dapr: &mut Dapr, store: &str) -> Outcome {
    let large = "x".repeat(20 * 1024).into_bytes();
    let binary: Vec<u8> = (0..=255).collect();
    for (key, value) in [("key", b"value".to_vec()), ("a/b/größe", binary), ("large", large)] {
        dapr.save_state(store, key, value.clone(), None, None, None).await?;
        assert_eq!(dapr.get_state(store, key, None).await?.data, value, "{key}");
        dapr.delete_state(store, key, None).await?;
        let gone = dapr.get_state(store, key, None).await?;
        assert_eq!((gone.data.as_slice(), gone.etag.as_str()), (&[][..], ""), "{key} after it was deleted");
    }
    ok("save, get, delete");
    Ok(())
}

async fn etags(dapr: &mut Dapr, store: &str) -> Outcome {
    let etag = |value: &str| Some(Etag { value: value.to_string() });
    dapr.save_state(store, "counted", b"a".to_vec(), None, None, None).await?;
    assert_eq!(dapr.get_state(store, "counted", None).await?.etag, "1");
    dapr.save_state(store, "counted", b"b".to_vec(), etag("1"), None, Some(FIRST_WRITE)).await?;
    assert_eq!(dapr.get_state(store, "counted", None).await?.etag, "2");
    ok("etags are 1, then 2");
    let stale = dapr.save_state(store, "counted", b"c".to_vec(), etag("1"), None, Some(FIRST_WRITE)).await;
    refused("a stale save", stale, Code::Aborted);
    assert_eq!(dapr.get_state(store, "counted", None).await?.data, b"b");
    dapr.save_state(store, "counted", b"c".to_vec(), etag("1"), None, Some(LAST_WRITE)).await?;
    assert_eq!(dapr.get_state(store, "counted", None).await?.data, b"c");
    ok("a wrong etag is refused, unless the last write is to win");
    Ok(())
}

async fn time_to_live(dapr: &mut Dapr, store: &str) -> Outcome {
    let metadata = HashMap::from([("ttlInSeconds".to_string(), TTL.as_secs().to_string())]);
    let began = Instant::now();
    dapr.save_state(store, "brief", b"a".to_vec(), None, Some(metadata), None).await?;
    let found = dapr.get_state(store, "brief", None).await?;
    assert_eq!(found.data, b"a");
    let expires = found.metadata.get("ttlExpireTime").unwrap_or_else(|| panic!("no end among {:?}", found.metadata));
    assert!(expires.len() >= 20 && expires.as_bytes()[10] == b'T', "{expires} is no time of RFC 3339");
    ok("an answer tells when it ends");
    while !dapr.get_state(store, "brief", None).await?.data.is_empty() {
        assert!(began.elapsed() < WITHIN, "it did not end");
        tokio::time::sleep(PAUSE).await;
    }
    assert!(began.elapsed() >= TTL - Duration::from_secs(1), "it ended before its time");
    ok("a value ends with its time");
    Ok(())
}

async fn many(dapr: &mut Dapr, store: &str) -> Outcome {
    let item = |key: &str, value: &str| StateItem::from((key, value.as_bytes().to_vec()));
    dapr.save_bulk_states(store, vec![item("many-0", "0"), item("many-1", "1")]).await?;
    for key in ["many-0", "many-1"] {
        assert_eq!(dapr.get_state(store, key, None).await?.etag, "1", "{key}");
    }
    dapr.delete_bulk_state(store, vec![("many-0", vec![]), ("many-1", vec![])]).await?;
    for key in ["many-0", "many-1"] {
        assert!(dapr.get_state(store, key, None).await?.data.is_empty(), "{key} is still there");
    }
    ok("bulk save and bulk delete");
    Ok(())
}

async fn errors(dapr: &mut Dapr) {
    let told = refused("an unknown store", dapr.get_state("unknown", "a", None).await, Code::InvalidArgument);
    assert!(told.contains("state store unknown is not found"), "{told}");
    ok("an unknown store is refused");
}
