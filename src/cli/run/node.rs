//! The node, attached to or started here, and the key that the service speaks with.

use std::{net::SocketAddr, path::PathBuf, pin::Pin};

use reqwest::Method;
use serde_json::json;

use super::RunArgs;
use crate::{
    cli::{Client, Global, client::segment, error::Error, print},
    model::ServiceId,
};

/// What keys that are made here are called in `twin key ls`.
const LABEL: &str = "twin run";

/// Where a node is to be started.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it keeps its data, if somebody said so.
    pub data_dir: Option<PathBuf>,
    /// What it logs.
    pub log: &'static str,
}

/// A node in this process. Whoever may start one hands that in: this module does not know how.
pub struct OwnNode {
    /// Where it listens, for clients.
    pub url: String,
    /// Where it keeps its data, and its first key.
    pub data_dir: PathBuf,
    /// Ends it in good order; nothing happens until it is awaited.
    pub end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The node that is spoken to.
pub(super) struct Node {
    url: String,
    data_dir: PathBuf,
    own: Option<OwnNode>,
}

impl Node {
    /// Finds the node that is meant, or starts one with `start` if none is named and none answers.
    pub(super) async fn find<F>(args: &RunArgs, global: &Global, start: impl FnOnce(Place) -> F) -> Result<Self, Error>
    where
        F: Future<Output = Result<OwnNode, String>>,
    {
        if global.node.is_some() && args.node_port.is_some() {
            return Err(Error::Usage(
                "--node attaches to a node and --node-port starts one: say one of them".to_owned(),
            ));
        }
        let url = global.node().trim_end_matches('/').to_owned();
        if args.node_port.is_none() {
            let client = Client::new(&url, global.key.as_deref(), global.data_dir())?;
            match client.text("/livez").await {
                Ok(_) => return Ok(Self { url, data_dir: global.data_dir().to_owned(), own: None }),
                Err(Error::Unreachable { .. }) if global.node.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        let place = Place {
            listen: SocketAddr::from(([127, 0, 0, 1], args.node_port.unwrap_or(7070))),
            data_dir: global.data_dir.clone(),
            log: args.log_level.as_filter(),
        };
        let own = start(place).await.map_err(Error::Node)?;
        print::aside(&format!(
            "a node is started here, on {}, with its data in '{}'; it ends with the command",
            own.url,
            own.data_dir.display()
        ));
        Ok(Self { url: own.url.clone(), data_dir: own.data_dir.clone(), own: Some(own) })
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A way to it with this key, or with its own first one.
    pub(super) fn client(&self, key: Option<&str>) -> Result<Client, Error> {
        Client::new(&self.url, key, &self.data_dir)
    }

    /// Ends it, if it is ours.
    pub(super) async fn end(self) {
        if let Some(own) = self.own {
            own.end.await;
        }
    }
}

/// The key of the service, as text of which nothing is understood.
pub(super) struct Token {
    pub(super) text: String,
    /// To revoke it by, if it was made here.
    id: Option<String>,
}

impl Token {
    /// One that was given.
    pub(super) fn given(text: &str) -> Self {
        Self { text: text.trim().to_owned(), id: None }
    }

    /// A fresh one, made by an operator.
    pub(super) async fn mint(operator: &Client, service: &ServiceId) -> Result<Self, Error> {
        let body = json!({ "kind": "service", "service": service.as_str(), "label": LABEL });
        let made = operator.write(Method::POST, "/api/v1/keys", Some(&body), None).await?;
        let text = |name: &str| made.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
        match (text("key"), text("id")) {
            (Some(key), id @ Some(_)) => Ok(Self { text: key, id }),
            _ => Err(Error::Answer("it has made a key without saying it".to_owned())),
        }
    }

    /// Revokes it if it was made here; says so if that fails.
    pub(super) async fn end(self, operator: &Client) {
        let Some(id) = self.id else { return };
        let revoked = operator.write(Method::DELETE, &format!("/api/v1/keys/{}", segment(&id)), None, None).await;
        if let Err(error) = revoked {
            print::aside(&format!("the service's key is still good: {error}; 'twin key revoke {id}' ends it"));
        }
    }
}
