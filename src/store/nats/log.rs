//! A stream read in order, by a consumer that is gone when it is not used.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
};
use futures_util::StreamExt;

use super::{
    names::number,
    wire::{Delays, Stored, Wire, delays},
};

/// Messages asked for at once.
const MESSAGES_AT_ONCE: usize = 500;
/// How long a consumer that does not answer is asked again.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// How long a consumer outlives its reader.
const INACTIVE: Duration = Duration::from_secs(30);

/// See the module. It begins with what the replica has that serves it, and goes on with what that replica learns.
pub(super) struct Log {
    stream: jetstream::stream::Stream<()>,
    consumer: Consumer<pull::Config>,
    batch: Option<pull::Batch>,
    /// Messages received; a gap in their numbers is a loss on the way.
    received: u64,
    wait: Duration,
    /// Pauses before a consumer that did not answer is asked again; new with each message.
    delays: Delays,
    patience: Duration,
}

impl Log {
    pub(super) async fn open(
        wire: &Wire,
        stream: &str,
        filter_subjects: Vec<String>,
        from: u64,
        headers_only: bool,
    ) -> Result<Self, String> {
        let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(|error| error.to_string())?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::None,
            filter_subjects,
            headers_only,
            inactive_threshold: INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
        // Whatever reads a log opens another one: the consumer is gone with its server.
        let (wait, patience) = (wire.timeout(), wire.patience().min(ASKED_AGAIN));
        Ok(Self { stream, consumer, batch: None, received: 0, wait, delays: delays(patience), patience })
    }

    /// The next message; `None` if there was none for a while.
    pub(super) async fn next(&mut self) -> Result<Option<Stored>, String> {
        let mut asked = false;
        loop {
            let batch = match &mut self.batch {
                Some(batch) => batch,
                None if asked => return Ok(None),
                None => {
                    asked = true;
                    let batch = self.consumer.batch().max_messages(MESSAGES_AT_ONCE).expires(self.wait);
                    self.batch.insert(batch.messages().await.map_err(|error| error.to_string())?)
                }
            };
            match batch.next().await {
                None => self.batch = None,
                // One that was made just now, or whose server was just elected, may not answer yet. What was lost with the
                // batch shows in the numbers.
                Some(Err(error)) => {
                    let pause = self.delays.next().ok_or_else(|| error.to_string())?;
                    tokio::time::sleep(pause).await;
                    (self.batch, asked) = (None, false);
                }
                Some(Ok(message)) => {
                    self.delays = delays(self.patience);
                    let info = message.info().map_err(|error| error.to_string())?;
                    let (sequence, received) = (info.stream_sequence, info.consumer_sequence);
                    if received != self.received + 1 {
                        return Err("messages were lost on the way".into());
                    }
                    self.received = received;
                    let message = message.message;
                    let headers = message.headers.unwrap_or_default();
                    let subject = message.subject.to_string();
                    return Ok(Some(Stored { subject, sequence, headers, payload: message.payload }));
                }
            }
        }
    }

    /// Ends the consumer now rather than when it is found unused.
    pub(super) async fn close(self) {
        let name = self.consumer.cached_info().name.clone();
        if let Err(error) = self.stream.delete_consumer(&name).await {
            tracing::debug!(%error, "a consumer will end by itself");
        }
    }
}

/// Bytes that a message has, also if only its headers were sent.
pub(super) fn bytes_of(stored: &Stored) -> usize {
    let size = number(&stored.headers, "Nats-Msg-Size").and_then(|size| usize::try_from(size).ok());
    size.unwrap_or(stored.payload.len()) + stored.subject.len()
}
