//! Spawning a value that is no actor.

use hyperactor_proc::Proc;

struct Counter;

fn spawn(proc: &Proc) {
    proc.spawn("counter", Counter).ok();
}

fn main() {}
