//! Which host a command talks to, and which proc or actor a word of the command line means.

use hyperactor::host::SERVICE_PROC;
use hyperactor::prelude::*;
use hyperactor::refs::Reference;

use crate::failure::Failure;

/// The host that commands talk to when nothing is said: one of this user's.
pub(crate) fn default_host() -> String {
    format!("unix:@hyperactor-{}", user())
}

/// The number of the user that runs this program, as the kernel shows it.
fn user() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |of| of.uid())
}

/// The address in the text, or in its absence the default.
pub(crate) fn host(text: Option<&str>) -> Result<ChannelAddr, Failure> {
    let default = default_host();
    let text = text.unwrap_or(&default);
    text.parse()
        .map_err(|error| Failure::Input(format!("`{text}` is no address of a host: {error}")))
}

/// The proc that a text names: by its whole id, or by its name on the host.
pub(crate) fn proc(text: &str, host: &ChannelAddr) -> Result<ProcId, Failure> {
    if let Ok(Reference::Proc(proc_id)) = text.parse::<Reference>() {
        return Ok((*proc_id).clone());
    }
    ProcId::direct(host.clone(), text).map_err(|error| {
        Failure::Input(format!(
            "`{text}` is neither the id of a proc nor a proc's name: {error}"
        ))
    })
}

/// The actor that a text names: by a whole reference, as `PROC,ACTOR[INDEX]`, or by the name of a proc, whose agent is
/// meant.
pub(crate) fn actor(text: &str, host: &ChannelAddr) -> Result<ActorId, Failure> {
    let whole = text.parse::<Reference>();
    // Without an address of its own it is taken to be of the host.
    let on_host = || format!("{host},{text}").parse::<Reference>();
    match whole.or_else(|_| on_host()) {
        Ok(Reference::Port(port_id)) => Ok(port_id.actor_id().clone()),
        Ok(Reference::Actor(actor_id)) => Ok(actor_id),
        Ok(Reference::Proc(proc_id)) => Ok(agent_of(&proc_id)),
        Ok(other) => Err(Failure::Input(format!(
            "`{other}` is neither a proc nor an actor"
        ))),
        Err(error) => Err(Failure::Input(format!(
            "`{text}` is no reference to a proc or actor: {error}"
        ))),
    }
}

/// The actor that is in every proc.
fn agent_of(proc_id: &ProcId) -> ActorId {
    let name = if proc_id.name() == SERVICE_PROC {
        hyperactor::host::HOST_AGENT
    } else {
        hyperactor::proc::AGENT_NAME
    };
    ActorId::root(proc_id.clone(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> ChannelAddr {
        "unix:@h".parse().unwrap()
    }

    #[test]
    fn without_a_word_the_host_of_this_user_is_meant() {
        assert!(
            host(None)
                .unwrap()
                .to_string()
                .starts_with("unix:@hyperactor-")
        );
        assert_eq!(
            host(Some("tcp:127.0.0.1:7")).unwrap().to_string(),
            "tcp:127.0.0.1:7"
        );
        assert!(matches!(host(Some("nonsense")), Err(Failure::Input(_))));
    }

    #[test]
    fn a_name_and_a_whole_id_mean_the_same_proc() {
        assert_eq!(
            proc("worker", &here()).unwrap(),
            proc("unix:@h,worker", &here()).unwrap()
        );
        assert!(matches!(
            proc("a/b/../", &here()),
            Ok(_) | Err(Failure::Input(_))
        ));
        assert!(matches!(proc("", &here()), Err(Failure::Input(_))));
    }

    #[test]
    fn a_proc_stands_for_its_agent() {
        assert_eq!(
            actor("worker", &here()).unwrap().to_string(),
            "unix:@h,worker,agent[0]"
        );
        assert_eq!(
            actor("service", &here()).unwrap().to_string(),
            "unix:@h,service,host[0]"
        );
        assert_eq!(
            actor("worker,sink[2]", &here()).unwrap().to_string(),
            "unix:@h,worker,sink[2]"
        );
        assert_eq!(
            actor("unix:@x,w,sink[2]", &here()).unwrap().to_string(),
            "unix:@x,w,sink[2]"
        );
    }
}
