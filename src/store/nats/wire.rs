//! What is asked of JetStream, and what its answers mean.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, jetstream};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;

use super::names::number;
use crate::store::Error;

/// Another sequence than the expected one is in force: the fence.
const WRONG_SEQUENCE: u64 = 10071;
/// Another write that checks the same subject is in flight.
const IN_FLIGHT: u64 = 10164;
/// Errors that say that nothing was stored and that the same may be stored later: no leader yet, too many batches, a
/// batch that lost its beginning to an election.
const LATER: [u64; 7] = [10008, 10009, 10039, 10118, 10176, 10210, 10211];
/// Errors that say that nothing was stored, nor will be.
const NEVER: [u64; 14] =
    [10003, 10052, 10054, 10060, 10070, 10109, 10165, 10166, 10174, 10175, 10177, 10179, 10199, 10200];

/// What somebody else's write is called who gives up because of it.
pub(super) const CAME_BETWEEN: &str = "another write came between";

/// Why a write was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Not stored: what was expected of a subject does not hold.
    WrongSequence,
    /// Not stored: a write that checks the same is under way.
    InFlight,
    /// Not stored; may be, later.
    Later(String),
    /// Not stored, and will not be.
    Never(String),
    /// Nobody knows.
    Unknown(String),
}

impl Failure {
    /// The error of who gives up.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::WrongSequence => Error::Unavailable(CAME_BETWEEN.into()),
            Self::InFlight => Error::Busy("another write of the same slot is in flight"),
            Self::Later(why) | Self::Never(why) => Error::Unavailable(why.into()),
            Self::Unknown(why) => Error::Unknown(why.into()),
        }
    }
}

/// One message to store.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

impl Outgoing {
    pub(super) fn new(subject: String, payload: impl Into<Bytes>) -> Self {
        Self { subject, headers: HeaderMap::new(), payload: payload.into() }
    }

    /// Stored only if `subject` was last written at this sequence.
    pub(super) fn expect(&mut self, sequence: u64, subject: &str) {
        self.headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
        self.headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", subject);
    }
}

/// One stored message.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// The newest messages of several subjects, as one replica had them.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) messages: Vec<Stored>,
    /// Everything up to this sequence was applied by that replica.
    pub(super) up_to: u64,
}

/// Why several subjects could not be read at once.
#[derive(Debug)]
pub(super) enum Unread {
    /// The replica has none of them.
    Nothing,
    /// More than 1,024 subjects match.
    TooMany,
    /// No answer, or none that reads.
    Lost(String),
}

/// The connection.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    timeout: Duration,
    patience: Duration,
}

/// How long to wait before each further attempt; ends when patience does.
pub(super) type Delays = backon::ExponentialBackoff;

impl Wire {
    pub(super) fn new(client: Client, timeout: Duration, patience: Duration) -> Self {
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(timeout);
        Self { client, jetstream, timeout, patience }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn delays(&self) -> Delays {
        delays(self.patience)
    }

    /// Stores one message.
    pub(super) async fn store(&self, message: Outgoing) -> Result<u64, Failure> {
        let request = Request::new().headers(message.headers).payload(message.payload).timeout(Some(self.timeout));
        match self.client.send_request(message.subject, request).await {
            Ok(answer) => acknowledged(&answer),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Failure::Later("no JetStream leader answers".into()),
                RequestErrorKind::TimedOut => Failure::Unknown("no answer in time".into()),
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    Failure::Never(error.to_string())
                }
                RequestErrorKind::Other => Failure::Unknown(error.to_string()),
            }),
        }
    }

    /// Stores one message whose subject and content say the same however often it is stored.
    pub(super) async fn store_again(&self, message: Outgoing) -> Result<u64, Error> {
        let mut delays = self.delays();
        loop {
            let failure = match self.store(message.clone()).await {
                Ok(sequence) => return Ok(sequence),
                Err(failure @ (Failure::WrongSequence | Failure::Never(_))) => return Err(failure.into_error()),
                Err(failure @ (Failure::InFlight | Failure::Later(_) | Failure::Unknown(_))) => failure,
            };
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure.into_error()),
            }
        }
    }

    /// Stores all messages or none; answers the sequence of the last.
    pub(super) async fn store_all(&self, messages: Vec<Outgoing>) -> Result<u64, Failure> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let count = messages.len();
        for (at, mut message) in messages.into_iter().enumerate() {
            message.headers.insert(async_nats::header::NATS_BATCH_ID, id.as_str());
            message.headers.insert(async_nats::header::NATS_BATCH_SEQUENCE, (at + 1).to_string());
            if at + 1 == count {
                message
                    .headers
                    .insert(async_nats::header::NATS_BATCH_COMMIT, async_nats::header::NATS_BATCH_COMMIT_FINAL);
                return self.store(message).await;
            }
            let Outgoing { subject, headers, payload } = message;
            // What was not sent whole is never stored.
            let sent = self.client.publish_with_headers(subject, headers, payload).await;
            sent.map_err(|error| Failure::Never(error.to_string()))?;
        }
        Err(Failure::Never("a batch of nothing".into()))
    }

    /// Reads the newest message of each subject from any one replica: stale unless `up_to` and its content say not.
    pub(super) async fn newest(&self, stream: &str, subjects: &[String]) -> Result<Newest, Unread> {
        let lost = |error: &dyn std::fmt::Display| Unread::Lost(error.to_string());
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| lost(&error))?;
        let request = json!({ "multi_last": subjects }).to_string();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let asked = self.client.publish_with_reply(subject, inbox, request.into()).await;
        asked.map_err(|error| lost(&error))?;
        let mut messages = Vec::new();
        let all = async {
            while let Some(answer) = answers.next().await {
                match answer.status.map(|status| status.as_u16()) {
                    None | Some(200) => messages.push(stored(answer).ok_or_else(|| lost(&"an answer does not read"))?),
                    Some(204) => {
                        let headers = answer.headers.unwrap_or_default();
                        let up_to = number(&headers, "Nats-UpTo-Sequence");
                        return match (up_to, number(&headers, "Nats-Num-Pending")) {
                            (Some(up_to), None | Some(0)) => Ok(up_to),
                            _ => Err(lost(&"an answer was cut short")),
                        };
                    }
                    Some(404) => return Err(Unread::Nothing),
                    Some(413) => return Err(Unread::TooMany),
                    Some(503) => return Err(lost(&"no replica answers")),
                    Some(other) => return Err(lost(&format!("status {other}"))),
                }
            }
            Err(lost(&"the connection is closed"))
        };
        let up_to = tokio::time::timeout(self.timeout, all).await.map_err(|_| lost(&"no answer in time"))??;
        Ok(Newest { messages, up_to })
    }

    /// Reads the newest message of a subject from the leader: stale only if the leader has been deposed unawares.
    pub(super) async fn of_leader(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Error> {
        use jetstream::stream::LastRawMessageErrorKind as Kind;
        let mut delays = self.delays();
        loop {
            let asked = async {
                let stream = self.jetstream.get_stream_no_info(stream).await.map_err(|error| error.to_string())?;
                match stream.get_last_raw_message_by_subject(subject).await {
                    Ok(message) => Ok(Some(Stored {
                        subject: message.subject.to_string(),
                        sequence: message.sequence,
                        headers: message.headers,
                        payload: message.payload,
                    })),
                    Err(error) if error.kind() == Kind::NoMessageFound => Ok(None),
                    Err(error) => Err(error.to_string()),
                }
            };
            let why = match asked.await {
                Ok(message) => return Ok(message),
                Err(why) => why,
            };
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(Error::Unavailable(why.into())),
            }
        }
    }
}

/// Waits for further attempts: from 5 ms to half a second, for about this long.
pub(super) fn delays(patience: Duration) -> Delays {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(5))
        .with_max_delay(Duration::from_millis(500))
        .without_max_times()
        .with_total_delay(Some(patience))
        .build()
}

#[derive(serde::Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    error: Option<Refusal>,
}

#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn acknowledged(answer: &Message) -> Result<u64, Failure> {
    match serde_json::from_slice(&answer.payload) {
        Ok(Acknowledgement { seq, error: None }) if seq > 0 => Ok(seq),
        Ok(Acknowledgement { error: Some(Refusal { err_code, description }), .. }) => Err(match err_code {
            WRONG_SEQUENCE => Failure::WrongSequence,
            IN_FLIGHT => Failure::InFlight,
            code if LATER.contains(&code) => Failure::Later(description),
            code if NEVER.contains(&code) => Failure::Never(format!("{description} ({code})")),
            code => Failure::Unknown(format!("{description} ({code})")),
        }),
        Ok(Acknowledgement { error: None, .. }) | Err(_) => Err(Failure::Unknown("an answer does not read".into())),
    }
}

fn stored(answer: Message) -> Option<Stored> {
    let headers = answer.headers?;
    let subject = headers.get("Nats-Subject")?.as_str().to_owned();
    Some(Stored { subject, sequence: number(&headers, "Nats-Sequence")?, payload: answer.payload, headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_not_a_write_in_flight_and_what_is_not_known_is_unknown() {
        let said = |payload: &str| {
            acknowledged(&Message {
                subject: "s".into(),
                reply: None,
                payload: payload.to_owned().into(),
                headers: None,
                status: None,
                description: None,
                length: 0,
            })
        };
        let error = |code: u64| said(&format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"d"}}}}"#));
        assert_eq!(said(r#"{"stream":"S","seq":7,"batch":"b","count":2}"#), Ok(7));
        assert_eq!(error(10071), Err(Failure::WrongSequence));
        assert_eq!(error(10164), Err(Failure::InFlight));
        assert_eq!(error(10176), Err(Failure::Later("d".into())));
        assert!(matches!(error(10199), Err(Failure::Never(_))));
        assert!(matches!(error(10999), Err(Failure::Unknown(_))));
        assert!(matches!(said(r#"{"stream":"S"}"#), Err(Failure::Unknown(_))));
        assert!(matches!(said("what"), Err(Failure::Unknown(_))));
    }
}
