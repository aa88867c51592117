//! What a message costs in allocations, counted over the whole direct way on one thread. Counts depend on neither the machine nor
//! its load, so they are held to bounds here and not only shown by the comparison. A test binary of its own, because its
//! allocator counts.

use allocation_counter::measure;
use hyperactor_benches::compare::{count_allocations, count_large};

#[test]
fn a_message_on_the_direct_way_costs_two_allocations_at_most_and_a_question_within_a_proc_two() {
    const MESSAGES: u64 = 2_000;
    let found = count_allocations(MESSAGES, |work| measure(work).count_total);
    let found = found.expect("what is counted is started, and answers");
    // Queues and buffers grow with a burst and give back what it took.
    let bounds = [
        ("handle", 0.1),
        ("reference", 0.1),
        ("ask", 2.02),
        ("direct, one by one", 1.5),
        ("direct, in batches", 1.5),
    ];
    assert_eq!(found.len(), bounds.len(), "{found:?}");
    for (way, most) in bounds {
        let each = found[way];
        println!("{way}: {each:.3} allocations a message");
        assert!(each <= most, "{way}: {each}, of {most} at most");
    }
    // The value that is posted, or its place in the other actor's queue: a count of none would have counted nothing.
    assert!(found["direct, one by one"] >= 1.0, "{found:?}");
}

/// Both sides: the sender writes the bytes that it was given, and the receiver takes them in where those of an earlier message
/// were, which has been handled since.
#[test]
fn large_messages_on_the_direct_way_are_neither_copied_into_fresh_memory_nor_received_into_it() {
    const MESSAGES: u64 = 64;
    const SIZE: usize = 1 << 20;
    /// Of all messages together, so that no allocation was larger.
    const BYTES_MAX: u64 = 256 << 10;
    let info = count_large(MESSAGES, SIZE, |work| measure(work));
    let info = info.expect("what is counted is started, and answers");
    println!(
        "{MESSAGES} messages of {SIZE} bytes: {} bytes in {} allocations",
        info.bytes_total, info.count_total
    );
    assert!(info.count_total >= MESSAGES, "nothing was counted");
    assert!(
        info.bytes_total < BYTES_MAX,
        "{} bytes were allocated",
        info.bytes_total
    );
}
