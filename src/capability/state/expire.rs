//! Values whose time is over are deleted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Change, State,
    value::{EXPIRES, page, parse_expiry},
};
use crate::twin::{
    Effect, Needs, Rejection, from_bytes,
    part::{PartTurn, Request, Ruling},
    service::parts::Use,
};

/// Values deleted in one commit: each is two pages.
const AT_ONCE: usize = 16;
/// If the deletion that was begun does not end, it is begun again after so long.
const AGAIN: Duration = Duration::from_secs(30);

/// Deletes values whose time is over; the twin tells it to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire;

pub(super) fn wake(turn: &PartTurn<'_>) -> Ruling<Change, ()> {
    let again = Change::Look { at: Some(turn.now.after(AGAIN)) };
    Ruling::new(()).change(again).effect(Effect::tell(turn.key.clone(), Use(Expire)))
}

impl Request for Expire {
    type Part = State;
    type Reply = ();
    const OPERATION: &'static str = "expire";
    const NAME: &'static str = "state-expire/1";
    const INTERNAL: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "expire");
    }

    fn needs(&self) -> Needs {
        Needs::Prefix { prefix: EXPIRES.to_owned(), after: None, limit: AT_ONCE + 1 }
    }

    fn decide(&self, _: &State, turn: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let mut ruling = Ruling::new(());
        let mut look_at = None;
        let entries = turn.prefix(EXPIRES);
        for (at, (name, bytes)) in entries.into_iter().enumerate() {
            let Some((due, store, key)) = parse_expiry(name) else {
                ruling = ruling.page(name, None);
                continue;
            };
            if due > turn.now {
                look_at = Some(due);
                break;
            }
            if at == AT_ONCE {
                return Ok(ruling.effect(Effect::tell(turn.key.clone(), Use(Self))));
            }
            let was = from_bytes(bytes).unwrap_or(0);
            ruling = ruling.page(&page(store, key), None).page(name, None);
            ruling = ruling.change(Change::Gone { store: store.into(), key: key.into(), was, expired: true });
        }
        Ok(ruling.change(Change::Look { at: look_at }))
    }
}
