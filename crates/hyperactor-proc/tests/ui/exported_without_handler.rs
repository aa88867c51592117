//! An exported message without a handler.

use hyperactor_proc::{Actor, Message};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct Add(u64);

#[derive(Actor)]
#[actor(messages(Add))]
struct Counter;

fn main() {}
