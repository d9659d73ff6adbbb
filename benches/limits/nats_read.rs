//! Limit of activations after a take-over: one `multi_last` direct get for each record and the ownership of its slot.

use std::sync::Arc;

use async_nats::Client as Nats;
use futures_util::StreamExt as _;
use service_twin::{model::Key, store::Slot};

use crate::{workloads::Client, world::place_of};

/// A caller that reads each record once.
#[derive(Clone)]
pub(crate) struct Reader {
    nats: Nats,
    prefix: &'static str,
    ids: Arc<[String]>,
}

impl Reader {
    pub(crate) fn new(nats: Nats, prefix: &'static str, ids: &Arc<[String]>) -> Self {
        Self { nats, prefix, ids: ids.clone() }
    }
}

impl Client for Reader {
    async fn call(&mut self, at: u64) -> u64 {
        let Self { nats, prefix, ids } = self;
        let key = &ids[usize::try_from(at).unwrap()];
        let slot = Slot::of(Key::hash_of(key));
        let place = place_of(slot);
        let start = format!("{prefix}.{place}.{}", slot.0);
        let inbox = nats.new_inbox();
        let mut answers = nats.subscribe(inbox.clone()).await.unwrap();
        let ask = format!(r#"{{"multi_last":["{start}.own","{start}.c.entity.{key}"]}}"#);
        let subject = format!("$JS.API.DIRECT.GET.{prefix}_TW{place:02}");
        nats.publish_with_reply(subject, inbox, ask.into()).await.unwrap();
        let mut found = 0;
        while let Some(answer) = answers.next().await {
            match answer.status.map(|status| status.as_u16()) {
                None | Some(200) => found += 1,
                Some(204) => break,
                Some(status) => panic!("status {status}"),
            }
        }
        assert_eq!(found, 2, "an ownership and a record");
        1
    }
}
