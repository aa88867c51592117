//! A reference to an actor that was written without the derive, and so has no list of exports.

use hyperactor_proc::{Actor, ActorHandle};

struct Counter;

impl Actor for Counter {}

fn bind(counter: &ActorHandle<Counter>) {
    counter.bind();
}

fn main() {}
