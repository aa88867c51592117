//! An actor that starts programs of all kinds in its proc's process, as users' code does: plain ones and deaf ones, some with
//! nothing inherited, some with children of their own, and hosts with procs of their own.

use std::process::{Command, Stdio};

use hyperactor_proc::{
    Actor, ActorError, ActorResult, Context, Handler, Message, OncePortRef, RemoteSpawn,
};
use serde::{Deserialize, Serialize};

use crate::world::ROLE;

/// What a proc's actor may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A program that waits.
    Plain,
    /// The same, with no descriptor but the standard ones: so start the libraries of other languages their programs.
    Closed,
    /// Deaf to every signal that can be ignored.
    Deaf,
    /// Programs of programs, the parents of some of which have ended.
    Tree,
    /// Always another process: whoever ends what it saw is late.
    Restless,
    /// A host with procs of its own.
    Host,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Plain,
        Self::Closed,
        Self::Deaf,
        Self::Tree,
        Self::Restless,
        Self::Host,
    ];

    fn command(self) -> Command {
        let script = match self {
            Self::Host => {
                let mut host = Command::new("/proc/self/exe");
                host.args([ROLE, "inner"]);
                return host;
            }
            Self::Plain => "exec sleep 600",
            Self::Closed => {
                "for fd in /proc/$$/fd/*; do fd=${fd##*/}; \
                 [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done 2>/dev/null; exec sleep 600"
            }
            Self::Deaf => "trap '' TERM HUP INT QUIT USR1; while :; do sleep 600; done",
            Self::Tree => "(sleep 600 & sleep 600) & (sleep 600 &) ; exec sleep 600",
            Self::Restless => "while :; do sleep 0.005; done",
        };
        // Not `sh`: of descriptors beyond 9 it knows nothing.
        let mut shell = Command::new("bash");
        shell.args(["-c", script]);
        shell
    }
}

/// Starts programs when it is told to.
#[derive(Actor, Default)]
#[actor(messages(Breed))]
pub(crate) struct Breeder;

/// Has these programs started; replies when all are.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Breed {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) reply: OncePortRef<()>,
}

impl RemoteSpawn for Breeder {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Breed> for Breeder {
    async fn handle(&mut self, cx: &Context<Self>, breed: Breed) -> ActorResult {
        for kind in breed.kinds {
            // Its end is nobody's concern here, and its output goes where the proc's goes.
            drop(kind.command().stdin(Stdio::null()).spawn()?);
        }
        cx.reply(breed.reply, ());
        Ok(())
    }
}
