//! The derive was told of hooks, and there are none.

use hyperactor_proc::Actor;

#[derive(Actor)]
#[actor(hooks)]
struct Counter;

fn main() {}
