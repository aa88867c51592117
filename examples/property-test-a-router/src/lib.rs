//! A static routing table: lines of text say where ports are reached. It stands for whatever a program does with addresses;
//! the point is in `tests/`.

use std::fmt;

use hyperactor_refs::{ChannelAddr, ParseError, PortId, PrefixMap, Reference};

/// What separates a destination from where it is reached. Neither can have a space, so it is never part of one.
const ARROW: &str = " -> ";

/// Where destinations are reached.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    table: PrefixMap<ChannelAddr>,
}

/// Why a table is refused.
#[derive(Debug)]
pub struct RoutesError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug)]
pub enum Fault {
    /// There is no arrow.
    NoArrow,
    /// The destination is no reference.
    Destination(ParseError),
    /// The place is no address.
    Place(ParseError),
    /// An earlier line has the same destination, perhaps in another spelling.
    Twice,
}

impl Routes {
    /// Reads a table, a line a route. Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// The first line that is no route, or that has the destination of an earlier one.
    pub fn read(text: &str) -> Result<Self, RoutesError> {
        let mut routes = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |fault| RoutesError {
                line: index + 1,
                fault,
            };
            let (destination, place) = line.split_once(ARROW).ok_or_else(|| at(Fault::NoArrow))?;
            let destination: Reference =
                destination.parse().map_err(|e| at(Fault::Destination(e)))?;
            let place = place.parse().map_err(|e| at(Fault::Place(e)))?;
            if routes.add(destination, place).is_some() {
                return Err(at(Fault::Twice));
            }
        }
        Ok(routes)
    }

    /// Adds a route and gives back the one that it replaces.
    pub fn add(&mut self, destination: Reference, place: ChannelAddr) -> Option<ChannelAddr> {
        self.table.insert(destination, place)
    }

    /// Where a port is reached: by the most specific route, else where its own id says.
    pub fn place_of<'a>(&'a self, port: &'a PortId) -> &'a ChannelAddr {
        self.table
            .lookup(port)
            .unwrap_or_else(|| port.proc_id().addr())
    }
}

impl fmt::Display for Routes {
    /// The text that [`Routes::read`] reads, in the order of the destinations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut routes: Vec<_> = self.table.iter().collect();
        routes.sort();
        routes
            .iter()
            .try_for_each(|(destination, place)| writeln!(f, "{destination}{ARROW}{place}"))
    }
}

impl fmt::Display for RoutesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.fault {
            Fault::NoArrow => write!(f, "expected a destination, `{ARROW}` and an address"),
            Fault::Destination(error) | Fault::Place(error) => write!(f, "{error:#}"),
            Fault::Twice => f.write_str("an earlier line has this destination"),
        }
    }
}

impl std::error::Error for RoutesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Destination(error) | Fault::Place(error) => Some(error),
            Fault::NoArrow | Fault::Twice => None,
        }
    }
}
