//! The program `hyperactor`: a demonstration of many processes, and measurements.
//!
//! This file holds the order of things at start and end; each command has a module of its own.

mod args;
mod embedded;
mod failure;
mod input;
mod leftovers;
mod limits;
mod parts;
mod progress;
mod report;
mod style;
mod words;

fn main() {}
