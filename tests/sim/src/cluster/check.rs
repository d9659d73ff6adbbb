//! What was asked and answered, and whether that can be true.

use std::collections::BTreeMap;

use service_twin::store::{Epoch, Slot};

use super::host::{READ, Told};

/// One call, in the order of a counter that every beginning and every end takes a number from.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub slot: Slot,
    pub operation: u32,
    pub begun: u64,
    pub ended: Option<(u64, Told)>,
}

/// Why the calls and the lists contradict each other, if they do.
pub fn contradiction(calls: &[Call], lists: &BTreeMap<Slot, Vec<(Epoch, u32)>>) -> Option<String> {
    calls.iter().find_map(|call| {
        let empty = Vec::new();
        let list = lists.get(&call.slot).unwrap_or(&empty);
        let times = list.iter().filter(|(_, operation)| *operation == call.operation).count();
        let Some((ended, told)) = call.ended else { return Some(format!("{call:?} never ended")) };
        if call.operation == READ {
            let Told::Done(length) = told else { return None };
            let acked = |other: &Call| match other.ended {
                Some((at, Told::Done(place))) => {
                    let before = other.slot == call.slot && at < call.begun;
                    before.then_some(place + u32::from(other.operation != READ))
                }
                Some((_, Told::Not | Told::Unknown)) | None => None,
            };
            let least = calls.iter().filter_map(acked).max().unwrap_or(0);
            return (length < least).then(|| format!("{call:?} is stale: {least} were there before"));
        }
        if times > 1 {
            return Some(format!("{call:?} was done {times} times"));
        }
        match told {
            Told::Done(place) => {
                let at = usize::try_from(place).expect("lists are short");
                if list.get(at).is_none_or(|(_, operation)| *operation != call.operation) {
                    return Some(format!("{call:?} was acknowledged and is not there"));
                }
                let overtook = |other: &&Call| match other.ended {
                    Some((_, Told::Done(earlier))) => {
                        other.operation != READ && other.slot == call.slot && other.begun > ended && earlier < place
                    }
                    Some((_, Told::Not | Told::Unknown)) | None => false,
                };
                calls.iter().find(overtook).map(|other| format!("{other:?} came before {call:?}"))
            }
            Told::Not => (times > 0).then(|| format!("{call:?} was refused and done")),
            Told::Unknown => None,
        }
    })
}
