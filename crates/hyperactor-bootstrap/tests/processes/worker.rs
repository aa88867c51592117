//! An actor that does to its process what users' code does: prints, allocates, starts programs.

use hyperactor_proc::{
    Actor, ActorError, ActorResult, Context, Handler, Message, OncePortRef, RemoteSpawn,
};
use serde::{Deserialize, Serialize};

#[derive(Actor, Default)]
#[actor(messages(Say, Eat, Tell, Launch))]
pub(crate) struct Worker;

/// Prints lines, and replies when they are written.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Say {
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
    pub(crate) reply: OncePortRef<()>,
}

/// Allocates this many bytes.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Eat(pub(crate) u64);

/// Starts a shell with a script, forgets it, and tells its process number.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) script: String,
    /// Whether it gets the descriptors that are there to be inherited.
    pub(crate) inherits: bool,
    pub(crate) reply: OncePortRef<u32>,
}

/// Asks for facts about the process.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Tell(pub(crate) OncePortRef<Facts>);

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The processors that each of its threads may run on, as the kernel lists them.
    pub(crate) cpus: Vec<String>,
    /// `/proc/self/limits`.
    pub(crate) limits: String,
    /// The environment of a program that it starts.
    pub(crate) environment: Vec<String>,
    pub(crate) nice: i64,
}

impl RemoteSpawn for Worker {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Say> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, say: Say) -> ActorResult {
        for line in say.stdout {
            println!("{line}");
        }
        for line in say.stderr {
            eprintln!("{line}");
        }
        cx.reply(say.reply, ());
        Ok(())
    }
}

impl Handler<Eat> for Worker {
    async fn handle(&mut self, _: &Context<Self>, Eat(bytes): Eat) -> ActorResult {
        let eaten = vec![1u8; usize::try_from(bytes)?];
        std::hint::black_box(&eaten);
        Ok(())
    }
}

impl Handler<Launch> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, launch: Launch) -> ActorResult {
        let script = if launch.inherits {
            launch.script
        } else {
            // As other languages' libraries start programs: whatever could be inherited is closed.
            let close = "for fd in /proc/$$/fd/*; do fd=${fd##*/}; \
                         [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done";
            format!("{close} 2>/dev/null\n{}", launch.script)
        };
        let child = std::process::Command::new("bash")
            .args(["-c", &script])
            .stdin(std::process::Stdio::null())
            .spawn()?;
        cx.reply(launch.reply, child.id());
        Ok(())
    }
}

impl Handler<Tell> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, Tell(reply): Tell) -> ActorResult {
        let mut cpus = Vec::new();
        for task in std::fs::read_dir("/proc/self/task")? {
            // A thread may end between the two.
            let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            cpus.extend(allowed.map(|list| list.trim().to_owned()));
        }
        let environment = std::process::Command::new("env").output()?.stdout;
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let facts = Facts {
            cpus,
            limits: std::fs::read_to_string("/proc/self/limits")?,
            environment: String::from_utf8(environment)?
                .lines()
                .map(str::to_owned)
                .collect(),
            // The 19th field of the file, the 17th after the name.
            nice: fields
                .split_whitespace()
                .nth(16)
                .unwrap_or_default()
                .parse()?,
        };
        cx.reply(reply, facts);
        Ok(())
    }
}
