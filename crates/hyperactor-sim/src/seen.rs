//! How often a run reached the states that it exists for. A run of many seeds that never saw one proves nothing.

/// Declares the counters: name, text, and the least that 10,000 seeds must show.
macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident = $least:literal, $text:literal;)*) => {
        /// Counters of what was seen.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Seen {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Seen {
            /// Adds another run's counters.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Returns each counter's text, value, and the least that 10,000 seeds must show.
            pub fn rows(&self) -> Vec<(&'static str, u64, u64)> {
                vec![$(($text, self.$name, $least),)*]
            }
        }
    };
}

seen! {
    /// Messages posted.
    posted = 100_000, "messages posted";
    /// Outcomes told.
    delivered = 50_000, "told delivered";
    /// Outcomes told.
    not_delivered = 1000, "told not delivered";
    /// Outcomes told.
    unknown = 1000, "told unknown";
    /// A connection resumed a session with unacknowledged messages.
    resumed = 1000, "reconnect with unacknowledged messages";
    /// The application had settled, and the sender learns it only over the next connection.
    ack_lost = 200, "acknowledgement lost, message settled";
    /// A stream ended there.
    cut_hello = 50, "cut inside a hello";
    /// A stream ended there.
    cut_header = 200, "cut inside a frame's header";
    /// A stream ended there.
    cut_payload = 200, "cut inside a payload";
    /// A dialer insisted on a life that was over.
    stale_incarnation = 50, "stale incarnation refused";
    /// A hello came behind a newer one.
    stale_epoch = 50, "stale epoch refused";
    /// A state made by a hello that came late met its dialer again.
    stale_state = 1, "state of a late hello ended";
    /// Frames of an older connection came.
    fenced = 50, "older connection fenced";
    /// A message came again with other bytes, and was dropped: only a liar says one twice.
    duplicates = 10, "duplicates dropped";
    /// A sender waited for credit.
    window_closed = 500, "window closed";
    /// A sender found its log full.
    queue_full = 100, "log full";
    /// Messages that go to a place.
    labelled = 50_000, "messages to a place";
    /// A place had no room although the session had.
    place_full = 100, "place full, others not";
    /// A name was told.
    named = 5000, "names told";
    /// A message came in parts.
    in_parts = 1000, "messages in parts";
    /// Messages were judged and counted as one.
    runs = 1000, "runs taken in as a whole";
    /// A part was read past the buffer.
    landed = 1000, "parts that were read to where they stay";
    /// Settled, and not released until its place took something again.
    stuck = 1000, "messages in stuck queues";
    /// Not even settled until its place took something again.
    stuck_outside = 1000, "messages before stuck queues";
    /// Runs in which places took nothing until everybody else was done.
    isolated = 500, "frozen places stopped nobody";
    /// Messages that had no outcome then.
    isolated_open = 500, "messages that waited for frozen places";
    /// A stream took no more bytes.
    blocked = 500, "transport full";
    /// A session met a state that knew nothing of it, in the same life.
    session_lost = 20, "session expired or forgotten, then resumed";
    /// A session met another life.
    peer_restarted = 100, "peer restarted";
    /// Messages without progress failed.
    timed_out = 50, "delivery timed out";
    /// A connection on which nothing moved was dropped.
    dead = 100, "silent connection dropped";
    /// A state that nobody resumed ended.
    expired = 100, "session expired";
    /// A message larger than the peer takes failed alone.
    too_large = 50, "message too large";
    /// Messages failed because their peer ended the session.
    peer_closed = 100, "failed: peer closed";
    /// Messages failed because this side gave the session up.
    abandoned = 100, "failed: abandoned";
    /// Messages failed because the peer refused the session for good.
    hello_refused = 10, "failed: refused for good";
    /// Messages failed because the peer lied.
    violated = 100, "failed: violation";
    /// A receiver said no.
    refused = 500, "refused by the application";
    /// A session ended in order.
    goodbye = 100, "goodbye";
    /// A peer lied and the session ended.
    lies = 50, "lies punished";
    /// Runs in which nothing fell silent, held to outcomes without a pause of five seconds.
    live_healed = 500, "live pairs healed at once";
    /// Connections made.
    connections = 10_000, "connections";
    /// Faults that took effect.
    faults = 10_000, "faults";
}
