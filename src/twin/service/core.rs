//! The state of a service twin that is committed.

use serde::{Deserialize, Serialize};

use super::message;
use crate::{
    model::Timestamp,
    twin::{Decide, Decision, Durable, Message, Rejection, Snapshot, Turn, Twin},
};

/// The service twin's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Service {}

/// A fact about a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {}

impl Twin for Service {
    const KIND: &'static str = "service";
    const RECORD_BYTES_MAX: usize = 24 * 1024;
    const JOURNAL: bool = true;
    const OBSERVED: Option<&'static str> = Some("observed/");
    type Persistence = Durable;
    type Change = Change;

    fn create(_key: &str) -> Self {
        Self {}
    }

    fn apply(&mut self, change: &Change, _at: Timestamp) {
        match *change {}
    }
}

impl Snapshot for Service {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "";
}

macro_rules! unsupported {
    ($($message:ident)*) => {$(
        impl Decide<message::$message> for Service {
            fn decide(
                &self,
                _message: &message::$message,
                _turn: &Turn<'_>,
            ) -> Result<Decision<Change, <message::$message as Message>::Reply>, Rejection> {
                Err(Rejection::Unsupported { what: stringify!($message).into() })
            }
        }
    )*};
}

unsupported! {
    Ingest Create GetView GetAttributes GetFeature SetAttributes SetDesired Report PostCommand NextCommands AckCommand
    FinishCommand CancelCommand GetCommand ListCommands DefineCommand Heartbeat Deregister Remove
}
