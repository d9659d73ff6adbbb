//! Subscriptions that services have declared, for whoever hands messages to their applications.

use super::Server;
use crate::{
    capability::topics::{GetSubscriptions, Subscription},
    model::{Header, ServiceId},
    twin::Failure,
};

impl Server {
    /// The subscriptions that a service has declared; its twin tells of changes by `twin.subscription.*` events.
    pub async fn subscriptions(&self, service: &ServiceId, header: Header) -> Result<Vec<Subscription>, Failure> {
        self.call(service, GetSubscriptions, header, None).await
    }
}
