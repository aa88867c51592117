//! Registering an actor that cannot be made from a message.

use hyperactor_proc::{Actor, Registry};

#[derive(Actor)]
struct Counter;

fn main() {
    let _registry = Registry::new().with::<Counter>();
}
