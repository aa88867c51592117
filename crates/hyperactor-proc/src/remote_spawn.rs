//! The typed call that spawns an actor in another process, through the agent there.

use bytes::BytesMut;
use hyperactor_mailbox::{EncodeError, ErasedMessage, Outbox, wire_hash};
use hyperactor_refs::ProcId;

use crate::{ActorRef, AskError, ProcAgent, RemoteSpawn, SpawnActor, SpawnRefusal, limits};

/// Why an actor was not spawned in another process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteSpawnError {
    /// The agent of the proc did not answer.
    #[error("cannot ask the agent of `{proc_id}`: {error}")]
    Ask {
        /// The proc.
        proc_id: ProcId,
        /// Why not. Unless it is `NotDelivered`, the actor may have been spawned.
        #[source]
        error: AskError,
    },
    /// The agent refused.
    #[error("`{proc_id}` did not spawn the actor: {refusal}")]
    Refused {
        /// The proc.
        proc_id: ProcId,
        /// Why.
        #[source]
        refusal: SpawnRefusal,
    },
    /// The parameters could not be encoded.
    #[error("cannot encode the parameters: {0}")]
    Encode(#[from] EncodeError),
    /// The parameters are too large for a request.
    #[error("the parameters have {size} bytes, the limit is {max}; send large data in messages")]
    TooLarge {
        /// Their size in bytes.
        size: usize,
        /// The limit in bytes: [`limits::SPAWN_PARAMS_BYTES_MAX`].
        max: usize,
    },
}

impl RemoteSpawnError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &str {
        match self {
            Self::Ask { error, .. } => error.code(),
            Self::Refused { refusal, .. } => refusal.code(),
            Self::Encode(_) => "encode",
            Self::TooLarge { .. } => "too-large",
        }
    }

    /// Whether asking again is safe and promising.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Ask { error, .. } => error.is_retryable(),
            _ => false,
        }
    }
}

/// Spawns an actor of type `A` under `name` in the proc `proc_id`, and gives a reference to it.
///
/// The proc must have a [`ProcAgent`] whose registry lists `A`.
///
/// # Errors
/// [`RemoteSpawnError`]; an unknown type is answered with the nearest names that the process has.
///
/// # Cancel safety
/// A dropped future leaves open whether the actor is spawned.
///
/// # Panics
/// As [`ActorRef::ask`].
pub async fn spawn_remote<A: RemoteSpawn>(
    cx: &(impl Outbox + ?Sized),
    proc_id: &ProcId,
    name: impl Into<String>,
    params: A::Params,
) -> Result<ActorRef<A>, RemoteSpawnError> {
    let mut encoded = BytesMut::new();
    ErasedMessage::encode(&params, &mut encoded)?;
    // The parameters are not held across the wait, so they need not be `Sync`.
    drop(params);
    if encoded.len() > limits::SPAWN_PARAMS_BYTES_MAX {
        return Err(RemoteSpawnError::TooLarge {
            size: encoded.len(),
            max: limits::SPAWN_PARAMS_BYTES_MAX,
        });
    }
    let name = name.into();
    let answer = ProcAgent::at(proc_id)
        .ask(cx, |reply| SpawnActor {
            type_name: A::type_name().to_owned(),
            name,
            params_type: wire_hash::<A::Params>(),
            params: encoded.freeze(),
            reply,
        })
        .await;
    match answer {
        Ok(Ok(actor_id)) => Ok(ActorRef::attest(actor_id)),
        Ok(Err(refusal)) => Err(RemoteSpawnError::Refused {
            proc_id: proc_id.clone(),
            refusal,
        }),
        Err(error) => Err(RemoteSpawnError::Ask {
            proc_id: proc_id.clone(),
            error,
        }),
    }
}
