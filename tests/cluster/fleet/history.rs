//! What clients saw of one number that only grows by one, and whether one order explains it.

use std::time::Instant;

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action, History as Actions},
    },
    specifications::Specification,
};

/// What a request did, or found, at one moment between its beginning and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It saw this number.
    Saw(u64),
    /// It made this number out of the one before.
    Made(u64),
    /// It was refused because the number was another one.
    Was(Not),
    /// It made this number out of the one before, or nothing, or may yet.
    May(u64),
}

/// A number that it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Not(pub(crate) u64);

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) from: Instant,
    /// Never, if nobody knows whether it ended.
    pub(crate) until: Option<Instant>,
    pub(crate) step: Step,
}

struct Number;

impl Specification for Number {
    type State = u64;
    type Operation = Step;

    fn init() -> u64 {
        0
    }

    fn apply(step: &Step, number: &u64) -> (bool, u64) {
        let next = number + 1;
        match *step {
            Step::Saw(seen) => (seen == *number, *number),
            Step::Made(made) => (made == next, made),
            Step::Was(Not(expected)) => (expected != *number, *number),
            Step::May(made) if made == next => (true, made),
            Step::May(_) => (true, *number),
        }
    }
}

/// Whether there is one order of all calls, each between its beginning and its end, in which each saw what it saw.
pub(crate) fn is_linearizable(calls: &[Call]) -> bool {
    let mut ends = Vec::with_capacity(calls.len() * 2);
    for (id, call) in calls.iter().enumerate() {
        ends.push((Some(call.from), id, Action::Call(call.step)));
        ends.push((call.until, id, Action::Response(call.step)));
    }
    // Those without an end come last.
    ends.sort_by_key(|(at, ..)| (at.is_none(), *at));
    let actions: Vec<_> = ends.into_iter().map(|(_, id, action)| (id, action)).collect();
    actions.is_empty() || WGLChecker::<Number>::is_linearizable(Actions::from_actions(actions))
}

mod tests {
    use std::time::Duration;

    use super::*;

    fn calls(of: &[(u64, u64, Step)]) -> Vec<Call> {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let call = |&(from, until, step)| Call { from: at(from), until: (until != 0).then(|| at(until)), step };
        of.iter().map(call).collect()
    }

    #[test]
    fn a_history_is_told_from_one_that_no_order_explains() {
        use Step::{Made, May, Saw, Was};
        for (of, is_fine) in [
            (&[(1, 9, Made(1)), (2, 3, Saw(0)), (4, 5, Saw(1))][..], true),
            (&[(1, 9, Made(1)), (2, 3, Saw(1)), (4, 5, Saw(0))], false),
            // What was acknowledged is seen.
            (&[(1, 2, Made(1)), (3, 4, Saw(0))], false),
            (&[(1, 2, Made(1)), (3, 4, Made(2)), (5, 6, Saw(1))], false),
            (&[(1, 2, Made(1)), (3, 4, Made(1))], false),
            // What nobody knows may be seen late, or never, but not come and go.
            (&[(1, 0, May(1)), (3, 4, Saw(0)), (8, 9, Saw(1))], true),
            (&[(1, 0, May(1)), (3, 4, Saw(0))], true),
            (&[(1, 0, May(1)), (3, 4, Saw(1)), (8, 9, Saw(0))], false),
            (&[(3, 0, May(1)), (1, 2, Saw(1))], false),
            (&[(1, 0, May(1)), (1, 2, Made(1)), (3, 4, Saw(1))], true),
            // A refusal says what it was not.
            (&[(1, 2, Made(1)), (3, 4, Was(Not(0)))], true),
            (&[(1, 2, Made(1)), (3, 4, Was(Not(1)))], false),
            // Nobody made what was seen.
            (&[(1, 2, Saw(1))], false),
        ] {
            assert_eq!(is_linearizable(&calls(of)), is_fine, "{of:?}");
        }
    }
}
