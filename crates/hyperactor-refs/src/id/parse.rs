//! The grammar of ids: an address, a comma and a name for a proc; a comma, a name and an index in brackets for an actor;
//! another index for a port. No part can hold a bare comma or bracket, so it is cut at them from the left.

use super::actor::ActorId;
use super::port::PortId;
use super::proc::{ProcId, ProcKey};
use super::reference::Reference;
use crate::addr::parse_channel_addr;
use crate::text::error::ParseErrorKind;
use crate::text::escape::unescape_name;
use crate::text::piece::{Fault, NumberFault, Piece};

pub(crate) fn parse_proc_id(whole: Piece<'_>) -> Result<ProcId, Fault> {
    let (proc, rest) = cut_proc(whole)?;
    match rest {
        None => Ok(proc),
        Some(rest) => Err(rest.fault(
            ParseErrorKind::TrailingText,
            "the end of a proc id; the id of an actor or a port goes on with a comma, and a comma in a name is `%2C`",
        )),
    }
}

pub(crate) fn parse_actor_id(whole: Piece<'_>) -> Result<ActorId, Fault> {
    let (actor, rest) = cut_actor(whole)?;
    if rest.is_empty() {
        return Ok(actor);
    }
    Err(rest
        .fault(
            ParseErrorKind::TrailingText,
            "the end of an actor id; one more index makes it a port id",
        )
        .mend_with(""))
}

pub(crate) fn parse_port_id(whole: Piece<'_>) -> Result<PortId, Fault> {
    let (actor, rest) = cut_actor(whole)?;
    port_of(actor, rest)
}

pub(crate) fn parse_reference(whole: Piece<'_>) -> Result<Reference, Fault> {
    if whole.bytes().iter().filter(|b| **b == b',').count() < 2 {
        return parse_proc_id(whole).map(Reference::from);
    }
    let (actor, rest) = cut_actor(whole)?;
    if rest.is_empty() {
        return Ok(Reference::Actor(actor));
    }
    port_of(actor, rest).map(Reference::Port)
}

/// Reads a proc id up to its end or to the comma behind it; what follows that comma is the rest.
fn cut_proc(whole: Piece<'_>) -> Result<(ProcId, Option<Piece<'_>>), Fault> {
    let Some((addr, rest)) = whole.split_once(b',') else {
        parse_channel_addr(whole)?;
        return Err(whole.behind().fault(
            ParseErrorKind::MissingName,
            "`,` and the proc's name behind the address",
        ));
    };
    let addr = parse_channel_addr(addr)?;
    let (name, rest) = match rest.split_once(b',') {
        Some((name, rest)) => (name, Some(rest)),
        None => (rest, None),
    };
    let name = unescape_name(name, "proc")?;
    Ok((ProcId::Direct(addr, name.into_owned()), rest))
}

/// Reads an actor id up to and with its index.
fn cut_actor(whole: Piece<'_>) -> Result<(ActorId, Piece<'_>), Fault> {
    let (proc, rest) = cut_proc(whole)?;
    let Some(rest) = rest else {
        return Err(whole.behind().fault(
            ParseErrorKind::MissingName,
            "`,` and the actor's name behind the proc id",
        ));
    };
    let bracket = rest.bytes().iter().position(|b| *b == b'[');
    let name_piece = bracket.map_or(rest, |at| rest.first(at));
    let name = unescape_name(name_piece, "actor")?;
    if bracket.is_none() {
        return Err(rest
            .behind()
            .fault(ParseErrorKind::MissingIndex, "`[` and the actor's index")
            .mend_with("[0]"));
    }
    let (index, rest) = cut_index(rest.skip(name_piece.bytes().len()))?;
    Ok((
        ActorId::in_proc(ProcKey::new(proc.into()), &name, index),
        rest,
    ))
}

fn port_of(actor: ActorId, rest: Piece<'_>) -> Result<PortId, Fault> {
    if rest.is_empty() {
        return Err(rest.fault(ParseErrorKind::MissingIndex, "`[` and the port's index"));
    }
    let (index, rest) = cut_index(rest)?;
    if !rest.is_empty() {
        return Err(rest
            .fault(ParseErrorKind::TrailingText, "the end of a port id")
            .mend_with(""));
    }
    Ok(PortId::new(actor, index))
}

/// Reads `[`, a number and `]`.
fn cut_index(piece: Piece<'_>) -> Result<(u64, Piece<'_>), Fault> {
    let Some(inner) = piece.strip_prefix("[") else {
        return Err(piece
            .fault(ParseErrorKind::TrailingText, "`[` and an index, or the end")
            .mend_with(""));
    };
    let Some((digits, rest)) = inner.split_once(b']') else {
        return Err(inner
            .behind()
            .fault(ParseErrorKind::BadIndex, "`]` behind the index")
            .mend_with("]"));
    };
    match digits.number(u64::MAX) {
        Ok(index) => Ok((index, rest)),
        Err(NumberFault::Empty | NumberFault::NotADigit { .. }) => {
            Err(digits.fault(ParseErrorKind::BadIndex, "an index of decimal digits"))
        }
        Err(NumberFault::TooLarge) => {
            Err(digits.fault(ParseErrorKind::BadIndex, "an index below 2^64"))
        }
    }
}
