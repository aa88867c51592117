//! The actors of this suite: one that keeps what it gets, in the order it came.

use bytes::Bytes;
use hyperactor_proc::{
    Actor, ActorError, ActorResult, Context, Handler, Message, OncePortRef, RemoteSpawn,
};
use serde::{Deserialize, Serialize};

/// Keeps every note, in the order they come.
#[derive(Actor, Default)]
#[actor(messages(Note, Notes))]
pub(crate) struct Keeper {
    notes: Vec<Bytes>,
}

/// A message that can be accounted for: the encoded form of `hyperactor_testkit::Stamped`.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Note(pub(crate) Bytes);

/// Asks a keeper for what it has.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Notes(pub(crate) OncePortRef<Vec<Bytes>>);

impl RemoteSpawn for Keeper {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Note> for Keeper {
    async fn handle(&mut self, _: &Context<Self>, Note(note): Note) -> ActorResult {
        self.notes.push(note);
        Ok(())
    }
}

impl Handler<Notes> for Keeper {
    async fn handle(&mut self, cx: &Context<Self>, Notes(reply): Notes) -> ActorResult {
        cx.reply(reply, self.notes.clone());
        Ok(())
    }
}
