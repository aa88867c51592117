//! Arguments that the derives do not know, and types that they cannot serve.

use hyperactor_proc::{Actor, Message};
use serde::{Deserialize, Serialize};

#[derive(Actor)]
#[actor(message(Add))]
struct Misspelt;

#[derive(Actor)]
#[actor(messages(u8, u8))]
struct Twice;

#[derive(Message, Serialize, Deserialize)]
#[message(rename = "x")]
struct Unknown;

#[derive(Message, Serialize, Deserialize)]
struct Field {
    #[message(name = "x")]
    field: u8,
}

#[derive(Message, Serialize)]
struct Borrowed<'a>(&'a str);

#[derive(Actor)]
struct Borrowing<'a>(&'a str);

#[derive(Actor)]
#[actor(linked)]
struct Linked<T: Send + 'static>(T);

fn main() {}
