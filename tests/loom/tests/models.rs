//! Each model over every interleaving (up to three preemptions), and each again with a mistake that it must notice.

use service_twin_loom::models::{self, Mutation};

#[test]
fn no_wake_up_is_lost() {
    models::no_wake_up_is_lost(Mutation::None);
}

#[test]
fn a_note_wakes_the_drain() {
    models::a_note_wakes_the_drain();
}

#[test]
fn a_caller_is_served_in_the_order_sent() {
    models::a_caller_is_served_in_the_order_sent(Mutation::None);
}

#[test]
fn a_refused_message_leaves_the_door_as_it_was() {
    models::a_refused_message_leaves_the_door_as_it_was();
}

#[test]
fn a_drain_that_looks_before_it_registers_is_noticed() {
    // loom's deadlock aborts the process while it unwinds, so this one has a process of its own.
    let this = std::env::current_exe().expect("a test has a file");
    let output = std::process::Command::new(this)
        .args(["--ignored", "--exact", "a_lost_wake_up_ends_this_process", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the test starts again");
    assert!(!output.status.success(), "the model did not notice");
    assert!(String::from_utf8_lossy(&output.stderr).contains("deadlock"));
}

#[test]
#[ignore = "run by a_drain_that_looks_before_it_registers_is_noticed"]
fn a_lost_wake_up_ends_this_process() {
    models::no_wake_up_is_lost(Mutation::LookThenRegister);
}

#[test]
#[should_panic(expected = "the order sent")]
fn a_door_that_opens_before_the_turns_is_noticed() {
    models::a_caller_is_served_in_the_order_sent(Mutation::FinishBeforeTurns);
}

#[test]
#[should_panic(expected = "the order sent")]
fn a_door_that_ignores_what_waits_is_noticed() {
    models::a_caller_is_served_in_the_order_sent(Mutation::DoorIgnoresPending);
}
