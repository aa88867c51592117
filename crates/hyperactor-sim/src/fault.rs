//! What can go wrong, as data: a script of faults is a list of these, and its text is what people read.

use std::fmt;

use crate::rng::Rng;

/// Nanoseconds of virtual time.
pub type Nanos = u64;

/// One second of virtual time.
pub const SECOND: Nanos = 1_000_000_000;
/// One millisecond of virtual time.
pub const MILLI: Nanos = 1_000_000;

/// A direction on a link: up is from its dialer to its acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the dialer.
    Up,
    /// To the dialer.
    Down,
}

impl Way {
    /// Returns 0 for up, 1 for down: also the side that sends this way.
    pub fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }
}

/// One fault of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it happens.
    pub at: Nanos,
    /// What happens.
    pub what: What,
}

/// What happens to a link or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The connection breaks after this many more bytes this way; on the next connection, if `next`.
    Cut {
        /// Which link.
        link: usize,
        /// Whose bytes are counted.
        way: Way,
        /// How many still pass.
        bytes: u64,
        /// Counted from the beginning of the next connection.
        next: bool,
    },
    /// Bytes this way vanish from now on; nobody is told.
    BlackHole {
        /// Which link.
        link: usize,
        /// Which direction.
        way: Way,
    },
    /// The side that sends this way loses the connection; the other side is not told, and what is on its way arrives.
    HalfOpen {
        /// Which link.
        link: usize,
        /// Whose side.
        way: Way,
    },
    /// The stream ends this way.
    HalfClose {
        /// Which link.
        link: usize,
        /// Which direction.
        way: Way,
    },
    /// The dialer dials anew though it has a connection.
    DuplicateDial {
        /// Which link.
        link: usize,
    },
    /// Bytes take longer for a while.
    Delay {
        /// Which link.
        link: usize,
        /// Which direction.
        way: Way,
        /// How much longer.
        by: Nanos,
        /// For how long.
        lasts: Nanos,
    },
    /// Nothing arrives this way for a while; then all of it does.
    Partition {
        /// Which link.
        link: usize,
        /// Which direction; `None` for both.
        way: Option<Way>,
        /// For how long.
        lasts: Nanos,
    },
    /// A process ends without a word and starts again with nothing.
    Restart {
        /// Which node.
        node: usize,
        /// How long it is away.
        lasts: Nanos,
        /// The machine vanished: its peers' connections are not closed.
        silent: bool,
    },
    /// An acceptor loses its state of the session, and lives on.
    Forget {
        /// Which link.
        link: usize,
    },
    /// One side gives the session up.
    Abandon {
        /// Which link.
        link: usize,
        /// The side that sends this way.
        way: Way,
    },
    /// One side closes the session in order.
    Close {
        /// Which link.
        link: usize,
        /// The side that sends this way.
        way: Way,
    },
    /// A process stands still.
    Freeze {
        /// Which node.
        node: usize,
        /// For how long.
        lasts: Nanos,
    },
    /// An application takes nothing out of its queue.
    Slow {
        /// Which node.
        node: usize,
        /// For how long.
        lasts: Nanos,
    },
    /// A place at the node that receives this way takes nothing for a while.
    Stick {
        /// Which link.
        link: usize,
        /// Which direction.
        way: Way,
        /// Which place.
        place: u64,
        /// For how long.
        lasts: Nanos,
    },
    /// A node's clock jumps ahead.
    Jump {
        /// Which node.
        node: usize,
        /// By how much.
        by: Nanos,
    },
    /// The dialer hears a lie of its peer's.
    Lie {
        /// Which link.
        link: usize,
        /// Which lie.
        lie: Lie,
    },
}

/// What a lying peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Received what was never sent.
    AckOfUnsent,
    /// Took credit back.
    Credit,
    /// A message that is not the next.
    Gap,
    /// Knows outcomes that were never given.
    Resolved,
    /// A message that came before, with other bytes.
    Repeat,
    /// A message to a label without a name.
    Unnamed,
    /// Released what was never sent.
    Released,
    /// A part of a message that was not begun.
    Part,
}

/// Every lie, in the order of [`Lie`].
const LIES: [Lie; 8] = [
    Lie::AckOfUnsent,
    Lie::Credit,
    Lie::Gap,
    Lie::Resolved,
    Lie::Repeat,
    Lie::Unnamed,
    Lie::Released,
    Lie::Part,
];

/// The classes of faults: each run has a weight for each, half of them 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the faults")]
pub enum Class {
    Cut,
    BlackHole,
    HalfOpen,
    HalfClose,
    DuplicateDial,
    Delay,
    Partition,
    RestartAcceptor,
    RestartDialer,
    Forget,
    Abandon,
    Close,
    Freeze,
    Slow,
    Stick,
    Jump,
    Lie,
}

/// Every class, in the order of [`Class`].
pub const CLASSES: [Class; 17] = [
    Class::Cut,
    Class::BlackHole,
    Class::HalfOpen,
    Class::HalfClose,
    Class::DuplicateDial,
    Class::Delay,
    Class::Partition,
    Class::RestartAcceptor,
    Class::RestartDialer,
    Class::Forget,
    Class::Abandon,
    Class::Close,
    Class::Freeze,
    Class::Slow,
    Class::Stick,
    Class::Jump,
    Class::Lie,
];

/// Draws one fault of a class. `ends` has each link's dialing and accepting node, `patience` is the silence after
/// which a connection counts as dead.
pub fn draw(class: Class, rng: &mut Rng, ends: &[(usize, usize)], patience: Nanos) -> What {
    let link = rng.below(ends.len() as u64) as usize;
    let (dialer, acceptor) = ends[link];
    let way = if rng.one_in(2) { Way::Up } else { Way::Down };
    // Around the silence that kills a connection is where it matters; most of it is far below.
    let lasts = rng.small(MILLI, patience * 4);
    let node = if rng.one_in(2) { dialer } else { acceptor };
    match class {
        Class::Cut => What::Cut {
            link,
            way,
            bytes: rng.small(0, 4000),
            next: rng.one_in(2),
        },
        Class::BlackHole => What::BlackHole { link, way },
        Class::HalfOpen => What::HalfOpen { link, way },
        Class::HalfClose => What::HalfClose { link, way },
        Class::DuplicateDial => What::DuplicateDial { link },
        Class::Delay => What::Delay {
            link,
            way,
            by: rng.small(MILLI, patience),
            lasts,
        },
        Class::Partition => What::Partition {
            link,
            way: (!rng.one_in(3)).then_some(way),
            lasts,
        },
        Class::RestartAcceptor | Class::RestartDialer => What::Restart {
            node: if class == Class::RestartDialer {
                dialer
            } else {
                acceptor
            },
            lasts: rng.small(MILLI, patience),
            silent: rng.one_in(3),
        },
        Class::Forget => What::Forget { link },
        Class::Abandon => What::Abandon { link, way },
        Class::Close => What::Close { link, way },
        Class::Freeze => What::Freeze { node, lasts },
        Class::Slow => What::Slow { node, lasts },
        Class::Stick => What::Stick {
            link,
            way,
            place: rng.small(1, 12),
            // Long enough for something to gather.
            lasts: rng.between(MILLI, patience * 2),
        },
        Class::Jump => What::Jump {
            node,
            by: rng.small(MILLI, patience * 4),
        },
        Class::Lie => What::Lie {
            link,
            lie: LIES[rng.below(LIES.len() as u64) as usize],
        },
    }
}

impl What {
    /// The same, ending within `rest`.
    #[must_use]
    pub fn at_most(mut self, rest: Nanos) -> Self {
        if let Self::Partition { lasts, .. }
        | Self::Delay { lasts, .. }
        | Self::Restart { lasts, .. }
        | Self::Freeze { lasts, .. }
        | Self::Slow { lasts, .. }
        | Self::Stick { lasts, .. } = &mut self
        {
            *lasts = (*lasts).min(rest);
        }
        self
    }

    /// Whether it can keep something silent for as long as deadlines take.
    pub fn silences(&self) -> bool {
        matches!(
            self,
            Self::BlackHole { .. }
                | Self::HalfOpen { .. }
                | Self::HalfClose { .. }
                | Self::Delay { .. }
                | Self::Partition { .. }
                | Self::Restart { .. }
                | Self::Freeze { .. }
                | Self::Slow { .. }
                | Self::Jump { .. }
        )
    }
}

fn millis(nanos: Nanos) -> String {
    format!("{}.{:03} ms", nanos / MILLI, nanos % MILLI / 1000)
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>13}  {}", millis(self.at), self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Cut {
                link,
                way,
                bytes,
                next,
            } => {
                let which = if next { "next" } else { "this" };
                write!(
                    f,
                    "cut link {link} {way} after {bytes} bytes of {which} connection"
                )
            }
            Self::BlackHole { link, way } => write!(f, "black-hole link {link} {way}"),
            Self::HalfOpen { link, way } => write!(f, "half-open link {link} at the sender {way}"),
            Self::HalfClose { link, way } => write!(f, "half-close link {link} {way}"),
            Self::DuplicateDial { link } => write!(f, "dial link {link} again"),
            Self::Delay {
                link,
                way,
                by,
                lasts,
            } => {
                let (by, lasts) = (millis(by), millis(lasts));
                write!(f, "delay link {link} {way} by {by} for {lasts}")
            }
            Self::Partition { link, way, lasts } => {
                let way = way.map_or("both ways".into(), |way| way.to_string());
                write!(f, "partition link {link} {way} for {}", millis(lasts))
            }
            Self::Restart {
                node,
                lasts,
                silent,
            } => {
                let how = if silent { "silently, " } else { "" };
                write!(f, "restart node {node} {how}away for {}", millis(lasts))
            }
            Self::Forget { link } => write!(f, "forget link {link} at the acceptor"),
            Self::Abandon { link, way } => write!(f, "abandon link {link} at the sender {way}"),
            Self::Close { link, way } => write!(f, "close link {link} at the sender {way}"),
            Self::Freeze { node, lasts } => write!(f, "freeze node {node} for {}", millis(lasts)),
            Self::Slow { node, lasts } => write!(f, "slow node {node} for {}", millis(lasts)),
            Self::Stick {
                link,
                way,
                place,
                lasts,
            } => {
                let lasts = millis(lasts);
                write!(f, "stick place {place} of link {link} {way} for {lasts}")
            }
            Self::Jump { node, by } => write!(f, "jump the clock of node {node} by {}", millis(by)),
            Self::Lie { link, lie } => write!(f, "lie on link {link}: {lie:?}"),
        }
    }
}
