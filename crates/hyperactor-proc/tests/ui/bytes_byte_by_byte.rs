//! A field of bytes that serde would encode one by one; those that say how it is to be done are left alone.

#![deny(deprecated)]

use hyperactor_proc::{ActorRef, ActorResult, Bytes, Context, Message, actor};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct Picture {
    width: u32,
    pixels: Vec<u8>,
}

#[derive(Message, Serialize, Deserialize)]
enum Frame {
    Empty,
    Layers(Option<Box<[u8]>>, u8),
}

#[derive(Message, Serialize, Deserialize)]
struct Right {
    shared: Bytes,
    #[serde(with = "hyperactor_proc::as_bytes")]
    owned: Vec<u8>,
    #[message(byte_by_byte)]
    flags: Vec<u8>,
    key: [u8; 16],
}

#[derive(hyperactor_proc::Actor, Default)]
struct Screen;

#[actor]
impl Screen {
    async fn show(&mut self, _cx: &Context<Self>, pixels: Vec<u8>) -> ActorResult {
        drop(pixels);
        Ok(())
    }

    async fn flag(
        &mut self,
        _cx: &Context<Self>,
        #[message(byte_by_byte)] flags: Vec<u8>,
    ) -> ActorResult {
        drop(flags);
        Ok(())
    }
}

fn main() {
    let _screen: Option<ActorRef<Screen>> = None;
}
