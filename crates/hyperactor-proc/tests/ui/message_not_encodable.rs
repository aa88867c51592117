//! What serde can say and the encoding cannot carry.

use hyperactor_proc::Message;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Message, Serialize, Deserialize)]
struct Inner {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
}

#[derive(Message, Serialize, Deserialize)]
struct Half {
    #[serde(skip_serializing)]
    secret: u8,
}

#[derive(Message, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
}

#[derive(Message, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Number { number: u8 },
}

fn main() {}
