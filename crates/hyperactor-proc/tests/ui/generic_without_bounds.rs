//! A generic actor whose parameter may not leave its thread.

use hyperactor_proc::Actor;

#[derive(Actor)]
struct Cache<T> {
    values: Vec<T>,
}

fn main() {}
