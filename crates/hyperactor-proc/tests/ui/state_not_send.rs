//! State that cannot move between threads.

use std::rc::Rc;

use hyperactor_proc::Actor;

#[derive(Actor)]
struct Counter {
    shared: Rc<u64>,
}

fn main() {}
