//! Clients that write down what they sent and heard, each through whatever node it happens to ask.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::history::{Call, Not, Step};

/// A client rests so long between two of its requests.
pub(crate) const REST: Duration = Duration::from_millis(20);
/// How often an append without an answer is sent again under its key.
const REPEATS_MAX: usize = 12;

/// How nodes are reached.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) client: Client,
    pub(crate) http: Vec<String>,
    pub(crate) key: String,
}

/// What became of a request.
pub(crate) enum Heard {
    Answer(Response),
    /// It changed nothing; what was said of it.
    Refused(StatusCode, String),
    Unknown(String),
}

impl Heard {
    /// Why there is no answer.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Answer(_) => "",
            Self::Refused(_, why) | Self::Unknown(why) => why,
        }
    }
}

impl Door {
    pub(crate) async fn send(&self, request: RequestBuilder) -> Heard {
        match request.bearer_auth(&self.key).send().await {
            Ok(answer) if answer.status().is_success() => Heard::Answer(answer),
            Ok(answer) => {
                let status = answer.status();
                match answer.text().await {
                    Ok(text) if text.contains("\"not_applied\"") => Heard::Refused(status, text),
                    Ok(text) => Heard::Unknown(text),
                    Err(error) => Heard::Unknown(error.to_string()),
                }
            }
            Err(error) if error.is_connect() => Heard::Refused(StatusCode::BAD_GATEWAY, error.to_string()),
            Err(error) => Heard::Unknown(error.to_string()),
        }
    }

    pub(crate) fn url(&self, node: usize, path: &str) -> String {
        format!("{}/api/v1/twins/{path}", self.http[node])
    }
}

/// One append: a value of one client under a name of its own, sent under one key until its outcome is known.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) key: String,
    pub(crate) from: Instant,
    /// When it was known, and which revision it made.
    pub(crate) known: Option<(Instant, u64)>,
    pub(crate) name: String,
    pub(crate) value: u64,
}

/// What was seen of a twin: its revision, and every client's value.
pub(crate) type Sight = (u64, BTreeMap<String, u64>);

/// What all clients of one twin did.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) appends: Mutex<Vec<Append>>,
    /// Keys of appends of which nothing came, and why.
    pub(crate) refused: Mutex<BTreeMap<String, String>>,
    pub(crate) sights: Mutex<Vec<(Instant, Instant, Sight)>>,
    /// Appends that were sent again after they were known or because they were not.
    pub(crate) repeats: AtomicUsize,
}

/// One client of one twin.
pub(crate) struct Teller {
    pub(crate) door: Door,
    pub(crate) twin: String,
    pub(crate) name: String,
    pub(crate) book: Arc<Book>,
    pub(crate) over: Arc<AtomicBool>,
    pub(crate) rng: StdRng,
}

impl Teller {
    fn url(&mut self, path: &str) -> String {
        let node = self.rng.random_range(0..self.door.http.len());
        self.door.url(node, &format!("{}{path}", self.twin))
    }

    /// Reads a number with its version and writes the next one if the version is still the same, until it is over.
    pub(crate) async fn count(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            self.count_once().await;
            tokio::time::sleep(REST).await;
        }
    }

    fn note(&self, from: Instant, until: Option<Instant>, step: Step) {
        self.book.calls.lock().push(Call { from, until, step });
    }

    async fn count_once(&mut self) -> Option<()> {
        let (url, from) = (self.url("/state/statestore/number"), Instant::now());
        let (number, version) = match self.door.send(self.door.client.get(url)).await {
            Heard::Answer(answer) if answer.status() == StatusCode::OK => {
                let version = answer.headers().get("etag").cloned();
                (answer.text().await.ok()?.parse().expect("a number"), version)
            }
            Heard::Answer(_) | Heard::Refused(StatusCode::NOT_FOUND, _) => (0, None),
            Heard::Refused(..) | Heard::Unknown(_) => return None,
        };
        self.note(from, Some(Instant::now()), Step::Saw(number));
        let (url, from) = (self.url("/state/statestore/number"), Instant::now());
        let put = self.door.client.put(url).header("content-type", "application/json");
        let put = match version {
            Some(version) => put.header("if-match", version),
            None => put.header("if-none-match", "*"),
        };
        match self.door.send(put.body((number + 1).to_string())).await {
            Heard::Answer(_) => self.note(from, Some(Instant::now()), Step::Made(number + 1)),
            Heard::Refused(StatusCode::PRECONDITION_FAILED, _) => {
                self.note(from, Some(Instant::now()), Step::Was(Not(number)));
            }
            Heard::Refused(..) => {}
            Heard::Unknown(_) => self.note(from, None, Step::May(number + 1)),
        }
        Some(())
    }

    /// Writes its next value without looking, and looks, until it is over.
    pub(crate) async fn append(mut self) {
        let mut value = 0;
        while !self.over.load(Ordering::Relaxed) {
            value += 1;
            self.append_once(value).await;
            self.look().await;
            tokio::time::sleep(REST).await;
        }
    }

    async fn append_once(&mut self, value: u64) {
        let (key, name) = (Uuid::now_v7().to_string(), self.name.clone());
        let from = Instant::now();
        let mut known = None;
        let (mut was_unknown, mut is_known_again) = (false, !self.rng.random_bool(0.2));
        for _ in 0..REPEATS_MAX {
            let url = self.url("/attributes");
            let patch = self.door.client.patch(url).header("idempotency-key", &key);
            let patch = patch.header("content-type", "application/merge-patch+json");
            match self.door.send(patch.body(json!({ &name: value }).to_string())).await {
                Heard::Answer(answer) => {
                    let Ok(written) = answer.json::<Value>().await else {
                        was_unknown = true;
                        continue;
                    };
                    let revision = written["revision"].as_u64().expect("a revision");
                    let (_, first) = *known.get_or_insert((Instant::now(), revision));
                    assert_eq!(first, revision, "{}: one key, two effects: {key}", self.twin);
                    if is_known_again {
                        break;
                    }
                    // Once more, though it is done.
                    is_known_again = true;
                }
                // Nothing came of this attempt, but perhaps of one before.
                Heard::Refused(..) if known.is_some() || was_unknown => {}
                Heard::Refused(_, why) => {
                    self.book.refused.lock().insert(key, why);
                    return;
                }
                Heard::Unknown(_) => was_unknown = true,
            }
            self.book.repeats.fetch_add(1, Ordering::Relaxed);
        }
        self.book.appends.lock().push(Append { key, from, known, name, value });
    }

    async fn look(&mut self) -> Option<()> {
        let (url, from) = (self.url("/attributes"), Instant::now());
        let Heard::Answer(answer) = self.door.send(self.door.client.get(url)).await else { return None };
        let revision = answer.headers()["etag"].to_str().unwrap().trim_matches('"').parse().unwrap();
        let seen: BTreeMap<String, u64> = answer.json().await.ok()?;
        self.book.sights.lock().push((from, Instant::now(), (revision, seen)));
        Some(())
    }
}
