//! A message that serde cannot encode.

use hyperactor_proc::Message;

#[derive(Message)]
struct Add(u64);

fn main() {}
