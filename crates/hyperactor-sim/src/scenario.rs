//! What a seed stands for: a world, the messages posted in it, and a script of faults. All of it is drawn before the
//! run begins, so that parts can be left out to find which of them matter.

use std::fmt;
use std::time::Duration;

use hyperactor_protocol::Config;

use crate::fault::{CLASSES, Fault, MILLI, Nanos, SECOND, draw};
use crate::rng::Rng;

/// The longest fault phase, virtual.
const HORIZON_MAX: Nanos = 120 * SECOND;
/// The most messages of a run.
const POSTS_MAX: u64 = 2000;
/// Messages up to this size go in one frame where places are frozen, bytes.
const SMALL_MAX: u64 = 300;
/// The first number of those whom messages are from.
const FROM: u64 = 1 << 32;
/// The most faults of a run.
const FAULTS_MAX: u64 = 300;

/// A node of the world.
pub const RECEIVER: usize = 0;

/// Everything that a run is made from.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed it was drawn from; what happens by chance during the run comes from it too.
    pub seed: u64,
    /// The world.
    pub world: World,
    /// The messages, in the order of their times.
    pub posts: Vec<Post>,
    /// The faults, in the order of their times.
    pub faults: Vec<Fault>,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// When it is posted.
    pub at: Nanos,
    /// On which link.
    pub link: usize,
    /// From the accepting side to the dialing one.
    pub back: bool,
    /// Bytes of its body.
    pub size: u32,
    /// Whether its sender waits for the outcome.
    pub urgent: bool,
    /// The place that it goes to, 0 for none.
    pub to: u64,
    /// Whom it is from, 0 for nobody in particular.
    pub from: u64,
}

/// The nodes, how they are joined, and how they are set up.
#[derive(Clone, Debug)]
pub struct World {
    /// One to three.
    pub senders: usize,
    /// Whether the senders reach the receiver through a node that passes messages on.
    pub relay: bool,
    /// Whether dialers insist on the incarnation they know.
    pub pinned: bool,
    /// Places that messages go to, besides none.
    pub places: u64,
    /// Those of them that take nothing out of their queues until everybody else is done.
    pub frozen: Vec<u64>,
    /// The place that large messages go to, if others must not wait for them.
    pub bulk: Option<u64>,
    /// The settings of each node; only the limits below differ.
    pub config: Config,
    /// Frame limits by node.
    pub max_frame: Vec<u32>,
    /// Message limits by node.
    pub max_message: Vec<u32>,
    /// How much faster than true each node's clock runs, in millionths.
    pub drift_ppm: Vec<i64>,
    /// How long bytes take.
    pub latency: Nanos,
    /// The most bytes that pass in one piece.
    pub chunk: usize,
    /// The bytes that a stream holds in one direction.
    pub socket_bytes: usize,
    /// The longest time from a message's arrival to its outcome.
    pub service: Nanos,
    /// Whether outcomes come in another order than messages.
    pub disorder: bool,
    /// Whether receivers refuse some messages.
    pub refusals: bool,
    /// When the faults end.
    pub horizon: Nanos,
}

impl World {
    /// Returns how many nodes there are.
    pub fn nodes(&self) -> usize {
        1 + usize::from(self.relay) + self.senders
    }

    /// Returns the dialing and the accepting node of each link; the senders' links come first.
    pub fn links(&self) -> Vec<(usize, usize)> {
        let first = 1 + usize::from(self.relay);
        let target = usize::from(self.relay);
        let mut links: Vec<_> = (0..self.senders).map(|at| (first + at, target)).collect();
        if self.relay {
            links.push((1, RECEIVER));
        }
        links
    }

    /// Returns the silence after which a connection is dead.
    pub fn patience(&self) -> Nanos {
        self.config.silence_timeout.as_nanos() as Nanos
    }

    fn draw(rng: &mut Rng) -> Self {
        let senders = rng.between(1, 3) as usize;
        let relay = rng.one_in(4);
        let nodes = 1 + usize::from(relay) + senders;
        let silence = Duration::from_millis([300, 1000, 3000, 10_000][rng.below(4) as usize]);
        let config = Config {
            window_messages: rng.small(1, 256) as u32,
            window_bytes: rng.small(1, 128 * 1024),
            outbox_messages: rng.small(1, 512) as u32,
            outbox_bytes: rng.small(1, 512 * 1024) as usize,
            ack_every: rng.small(1, 64) as u32,
            ack_delay: Duration::from_millis(rng.between(1, 10)),
            handshake_timeout: silence / 2,
            keepalive_idle: silence / 3,
            silence_timeout: silence,
            delivery_timeout: silence * 3,
            session_ttl: silence * 6,
            fragment_bytes: rng.small(64, 64 * 1024) as u32,
            ..Config::default()
        };
        // Between one and four times as large where nothing else waits; not drawn, so that seeds stay what they are.
        let config = Config {
            part_bytes: config.fragment_bytes * (1 + config.fragment_bytes % 4),
            ..config
        };
        let limits = [4096, 16 * 1024, 256 * 1024];
        let (mixed, mixed_frames) = (rng.one_in(3), rng.one_in(3));
        let mut limits_of = |mixed: bool| -> Vec<u32> {
            let draw = |_| limits[if mixed { rng.below(3) as usize } else { 2 }];
            (0..nodes).map(draw).collect()
        };
        let (max_message, max_frame) = (limits_of(mixed), limits_of(mixed_frames));
        let places = if rng.one_in(4) { 0 } else { rng.small(1, 12) };
        let drifts = rng.one_in(2);
        Self {
            senders,
            relay,
            pinned: rng.one_in(8),
            config,
            places,
            frozen: Vec::new(),
            bulk: None,
            max_frame,
            max_message,
            drift_ppm: (0..nodes)
                .map(|_| {
                    if drifts {
                        rng.below(40_000) as i64 - 20_000
                    } else {
                        0
                    }
                })
                .collect(),
            latency: rng.small(10_000, 20 * MILLI),
            chunk: rng.small(32, 64 * 1024) as usize,
            socket_bytes: rng.small(256, 256 * 1024) as usize,
            service: if rng.one_in(3) {
                0
            } else {
                rng.small(1, 50 * MILLI)
            },
            disorder: rng.one_in(2),
            refusals: rng.one_in(2),
            horizon: rng.small(SECOND / 5, HORIZON_MAX),
        }
    }
}

impl World {
    /// Makes some places take nothing: the others must not notice. That is promised where the window is not tiny: a
    /// place may have one message whatever its share.
    fn freeze(&mut self, rng: &mut Rng) {
        let count = rng.between(1, self.places.min(4) - 2);
        self.frozen = (1..=count).collect();
        // A large message that stays in its queue may hold up other large ones, and those behind them.
        self.bulk = Some(self.places);
        let config = &mut self.config;
        config.window_messages = config.window_messages.max(64);
        config.window_bytes = config.window_bytes.max(32 * 1024);
        config.outbox_messages = config.outbox_messages.max(64);
        config.outbox_bytes = config.outbox_bytes.max(256 * 1024);
        config.fragment_bytes = config.fragment_bytes.max(SMALL_MAX as u32);
        config.part_bytes = config.part_bytes.max(config.fragment_bytes);
    }
}

impl Scenario {
    /// Draws the scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0);
        let mut world = World::draw(&mut rng);
        if !world.relay && world.places >= 3 && rng.one_in(2) {
            world.freeze(&mut rng);
        }
        let posts = draw_posts(&world, &mut rng);
        let faults = draw_faults(&world, &mut rng);
        Self {
            seed,
            world,
            posts,
            faults,
        }
    }
}

fn draw_posts(world: &World, rng: &mut Rng) -> Vec<Post> {
    let duplex = rng.one_in(3);
    let large = rng.one_in(4) && world.chunk >= 512;
    let count = rng.small(20, POSTS_MAX);
    let mut posts = Vec::with_capacity(count as usize);
    while (posts.len() as u64) < count {
        // A burst: messages of one sender at one moment fill windows and share writes.
        let at = rng.below(world.horizon);
        let link = rng.below(world.senders as u64) as usize;
        let back = duplex && !world.relay && rng.one_in(3);
        for _ in 0..rng.small(1, 64) {
            let place = if !world.frozen.is_empty() && rng.one_in(3) {
                1 + rng.below(world.frozen.len() as u64)
            } else if rng.one_in(4) {
                0
            } else {
                rng.below(world.places + 1)
            };
            let size = match rng.below(100) {
                0 if large => rng.between(20_000, 80_000),
                0..4 if large => rng.between(3000, 6000),
                0..20 => 16,
                _ => rng.between(16, 300),
            };
            posts.push(Post {
                at,
                link,
                back,
                size: size as u32,
                urgent: rng.one_in(3),
                to: match world.bulk {
                    Some(bulk) if size > SMALL_MAX => bulk,
                    _ => place,
                },
                from: if rng.one_in(3) {
                    0
                } else {
                    FROM + rng.below(3)
                },
            });
        }
    }
    posts.sort_by_key(|post| post.at);
    posts
}

fn draw_faults(world: &World, rng: &mut Rng) -> Vec<Fault> {
    // Swarm: a run with some faults often and others never reaches states that a run with all of them never does.
    let weights = CLASSES.map(|_| {
        if rng.one_in(2) {
            0
        } else {
            rng.between(1, 100)
        }
    });
    let total: u64 = weights.iter().sum();
    let count = if total == 0 {
        0
    } else {
        rng.small(1, FAULTS_MAX)
    };
    let ends = world.links();
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let mut at = rng.below(total);
            let mut class = CLASSES[0];
            for (each, weight) in CLASSES.iter().zip(weights) {
                class = *each;
                if at < weight {
                    break;
                }
                at -= weight;
            }
            Fault {
                at: rng.below(world.horizon),
                what: draw(class, rng, &ends, world.patience()),
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.back { "down" } else { "up" };
        let urgent = if self.urgent { ", urgent" } else { "" };
        let (whole, part) = (self.at / MILLI, self.at % MILLI / 1000);
        write!(
            f,
            "{:>13}  post link {} {way}, {} bytes to place {}{urgent}",
            format!("{whole}.{part:03} ms"),
            self.link,
            self.size,
            self.to
        )
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        write!(
            f,
            "{} senders{}{}, {} places, {} of them frozen, parts of {} bytes, window {} messages {} bytes, log {} messages {} bytes, latency {} us, chunk {}, \
             socket {} bytes, silence {} ms, service {} us{}{}, horizon {} ms",
            self.senders,
            if self.relay { " behind a relay" } else { "" },
            if self.pinned { " (pinned)" } else { "" },
            self.places,
            self.frozen.len(),
            config.fragment_bytes,
            config.window_messages,
            config.window_bytes,
            config.outbox_messages,
            config.outbox_bytes,
            self.latency / 1000,
            self.chunk,
            self.socket_bytes,
            config.silence_timeout.as_millis(),
            self.service / 1000,
            if self.disorder { " in any order" } else { "" },
            if self.refusals { " with refusals" } else { "" },
            self.horizon / MILLI,
        )
    }
}
