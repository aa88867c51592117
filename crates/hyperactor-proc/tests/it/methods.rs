//! Actors written as methods: what `#[actor]` makes of them, called through every kind of reference.

use std::time::Duration;

use hyperactor_mailbox::{Failure, NotDelivered};
use hyperactor_proc::limits::ASK_DEADLINE;
use hyperactor_proc::{
    Accepts, Actor, ActorError, ActorHandle, ActorRef, ActorResult, Ask, AskError, Client, Context,
    Facade, Handler, Message, OncePortRef, Proc, ProcAgent, Registry, RestrictedRef, Tell, actor,
    spawn_remote,
};
use serde::{Deserialize, Serialize};

use crate::common::{Wire, soon};

/// Counts.
#[derive(Actor, Default)]
#[actor(messages(Doubled))]
struct Counter {
    total: i64,
    waiting: Vec<OncePortRef<i64>>,
}

/// Handled by hand, beside the methods.
#[derive(Message, Serialize, Deserialize)]
struct Doubled(OncePortRef<i64>);

impl Handler<Doubled> for Counter {
    async fn handle(&mut self, cx: &Context<Self>, Doubled(reply): Doubled) -> ActorResult {
        cx.reply(reply, self.twice());
        Ok(())
    }
}

#[actor(derive(Debug, Clone, PartialEq))]
impl Counter {
    const STEP: i64 = 1;

    /// No message: it takes no context.
    fn twice(&self) -> i64 {
        self.total * 2
    }

    /// No message: it says so.
    #[actor(skip)]
    async fn added(&mut self, _cx: &Context<Self>, amount: i64) -> i64 {
        self.total += amount;
        self.total
    }

    /// Adds, and replies the total.
    async fn add(&mut self, cx: &Context<Self>, amount: i64) -> ActorResult<i64> {
        Ok(self.added(cx, amount).await)
    }

    /// Adds one, and replies nothing.
    async fn step(&mut self, cx: &Context<Self>) -> ActorResult {
        self.add(cx, Self::STEP).await?;
        Ok(())
    }

    /// Sets to zero, and says so.
    async fn reset(&mut self, _cx: &Context<Self>) -> ActorResult<()> {
        self.total = 0;
        Ok(())
    }

    /// Cannot fail.
    async fn total(&self, _cx: &Context<Self>) -> i64 {
        self.total
    }

    /// Its error is the asker's.
    async fn divide(&mut self, _cx: &Context<Self>, by: i64) -> Result<i64, String> {
        match self.total.checked_div(by) {
            Some(total) => {
                self.total = total;
                Ok(total)
            }
            None => Err(format!("{} cannot be divided by {by}", self.total)),
        }
    }

    /// Its error is the actor's.
    async fn demand(&mut self, _cx: &Context<Self>, at_least: i64) -> Result<i64, ActorError> {
        if self.total < at_least {
            return Err(ActorError::from("there is not enough"));
        }
        Ok(self.total)
    }

    /// Answers when there is something.
    async fn wait(&mut self, _cx: &Context<Self>, reply: Option<OncePortRef<i64>>) {
        self.waiting.extend(reply);
    }

    /// Answers all that wait.
    async fn wake(&mut self, cx: &Context<Self>, cx_: u8, message: String) -> usize {
        let woken = self.waiting.len();
        for reply in self.waiting.drain(..) {
            cx.reply(reply, self.total);
        }
        assert_eq!((cx_, message.as_str()), (7, "all"));
        woken
    }
}

async fn spawned() -> (Proc, Client, ActorHandle<Counter>) {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("counter", Counter::default()).unwrap();
    (proc, main, handle)
}

/// The whole client, through whatever reference.
async fn uses<R>(main: &Client, counter: &R)
where
    R: CounterClient
        + Accepts<CounterAdd>
        + Accepts<CounterStep>
        + Accepts<CounterTotal>
        + Accepts<CounterReset>
        + Accepts<CounterDivide>
        + Accepts<CounterWait>
        + Accepts<CounterWake>,
{
    assert_eq!(counter.add(main, 3).await, Ok(3));
    counter.add(main, 3).post();
    assert_eq!(counter.step(main).await, Ok(()));
    counter.step(main).post();
    let total = counter.total(main).within(Duration::from_secs(5));
    assert_eq!(total.await, Ok(8));
    assert_eq!(counter.divide(main, 4).await, Ok(Ok(2)));
    let refused = counter.divide(main, 0).await;
    assert_eq!(refused, Ok(Err("2 cannot be divided by 0".to_owned())));
    let wait = async { counter.wait(main).await };
    let wake = async {
        while counter.wake(main, 7, "all".to_owned()).await != Ok(1) {
            tokio::task::yield_now().await;
        }
    };
    let (waited, ()) = tokio::join!(wait, wake);
    assert_eq!(waited, Ok(2));
    assert_eq!(counter.reset(main).await, Ok(()));
    assert_eq!(counter.total(main).await, Ok(0));
}

#[tokio::test]
async fn a_method_is_called_through_a_handle_that_was_never_bound() {
    let (_proc, main, handle) = spawned().await;
    soon(uses(&main, &handle)).await;
}

#[tokio::test]
async fn a_method_is_called_through_a_reference() {
    let (_proc, main, handle) = spawned().await;
    soon(uses(&main, &handle.bind())).await;
    // The messages that are handled by hand are exported beside the methods.
    assert_eq!(soon(handle.bind().ask(&main, Doubled)).await, Ok(0));
}

#[tokio::test]
async fn a_method_is_called_in_another_proc() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();
    soon(uses(&main, &counter)).await;
}

#[tokio::test]
async fn a_call_can_be_made_from_a_task_of_its_own() {
    let (_proc, main, handle) = spawned().await;
    let call = tokio::spawn(async move {
        let total = handle.add(&main, 1).await?;
        handle.bind().add(&main, total).await
    });
    assert_eq!(soon(call).await.unwrap(), Ok(2));
}

#[tokio::test]
async fn nothing_is_sent_before_a_call_is_awaited_or_posted() {
    let (_proc, main, handle) = spawned().await;
    drop(handle.step(&main));
    drop(handle.add(&main, 1));
    assert_eq!(soon(handle.total(&main)).await, Ok(0));
}

#[tokio::test]
async fn an_error_that_is_a_reply_leaves_the_actor_alive_and_an_actor_error_ends_it() {
    let (_proc, main, handle) = spawned().await;
    assert!(soon(handle.divide(&main, 0)).await.unwrap().is_err());
    assert_eq!(soon(handle.demand(&main, 0)).await, Ok(0));
    let asked = soon(handle.demand(&main, 1)).await;
    assert!(
        matches!(asked, Err(AskError::TargetEnded { .. })),
        "{asked:?}"
    );
    let exit = soon(handle.join()).await;
    assert!(exit.to_string().contains("there is not enough"), "{exit}");
    assert!(!exit.is_orderly(), "{exit}");
}

#[tokio::test]
async fn a_call_to_an_actor_that_has_ended_says_so_or_comes_back() {
    let (_proc, main, handle) = spawned().await;
    handle.stop();
    soon(handle.join()).await;
    for counter in [handle.bind().step(&main).await, handle.step(&main).await] {
        let Err(Failure::NotDelivered(NotDelivered::ActorStopped { .. })) = counter else {
            panic!("{counter:?}");
        };
    }
    let asked = soon(handle.add(&main, 1)).await;
    assert!(
        matches!(asked, Err(AskError::NotDelivered { .. })),
        "{asked:?}"
    );
    handle.step(&main).post();
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(
        report.envelope.into_message::<CounterStep>().unwrap(),
        CounterStep
    );
}

#[test]
fn a_message_is_named_by_actor_and_method_and_has_the_arguments_as_fields() {
    assert_eq!(CounterAdd::type_name(), "hyperactor-proc::CounterAdd");
    let message = CounterAdd {
        amount: 1,
        reply: None,
    };
    assert_eq!(
        format!("{message:?}"),
        "CounterAdd { amount: 1, reply: None }"
    );
    assert_eq!(postcard::to_stdvec(&message).unwrap(), [2, 0]);
}

/// May add and look.
#[derive(Facade)]
#[facade(messages(CounterAdd, CounterTotal))]
struct Adder;

/// May look.
#[derive(Facade)]
#[facade(messages(CounterTotal))]
struct Reader;

#[derive(Message, Serialize, Deserialize)]
struct Invitation {
    counter: RestrictedRef<Adder>,
}

#[tokio::test]
async fn a_restricted_reference_travels_and_calls_what_its_facade_includes() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();
    let sent = Invitation {
        counter: counter.restrict(),
    };
    let encoded = postcard::to_stdvec(&sent).unwrap();
    let Invitation { counter: adder } = postcard::from_bytes(&encoded).unwrap();
    assert_eq!(soon(adder.add(&main, 4)).await, Ok(4));
    let reader: RestrictedRef<Reader> = adder.restrict();
    assert_eq!(soon(reader.total(&main)).await, Ok(4));
    let ask = reader.ask(&main, |reply| CounterTotal { reply: Some(reply) });
    assert_eq!(soon(ask).await, Ok(4));
    assert_eq!(reader.to_string(), counter.to_string());
    assert_eq!(
        counter.to_string().parse::<RestrictedRef<Reader>>(),
        Ok(reader)
    );
}

/// A generic actor: some of its messages have its parameters, some have not.
#[derive(Actor, Default)]
struct Shelf<K: Message + Ord + Sync, V, const N: usize>
where
    V: Message + Clone + Sync,
{
    items: std::collections::BTreeMap<K, V>,
}

#[actor(client = ShelfCalls)]
impl<K: Message + Ord + Sync, V, const N: usize> Shelf<K, V, N>
where
    V: Message + Clone + Sync,
{
    async fn put(&mut self, _cx: &Context<Self>, items: std::collections::BTreeMap<K, V>) -> bool {
        let has_room = self.items.len() + items.len() <= N;
        if has_room {
            self.items.extend(items);
        }
        has_room
    }

    async fn look(&self, _cx: &Context<Self>, key: K) -> Option<V> {
        self.items.get(&key).cloned()
    }

    async fn clear(&mut self, _cx: &Context<Self>) -> ActorResult {
        self.items.clear();
        Ok(())
    }

    async fn me(&mut self, cx: &Context<Self>) -> ActorRef<Self> {
        ActorRef::attest(cx.actor_id().clone())
    }
}

#[tokio::test]
async fn a_generic_actor_has_messages_with_the_parameters_that_they_need() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let shelf = Shelf::<String, u8, 2>::default();
    let shelf = proc.spawn("shelf", shelf).unwrap().bind();
    let items = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!(soon(shelf.put(&main, items(&["a", "b"]))).await, Ok(true));
    assert_eq!(soon(shelf.put(&main, items(&["c"]))).await, Ok(false));
    let me = soon(shelf.me(&main)).await.unwrap();
    assert_eq!(soon(me.look(&main, "b".to_owned())).await, Ok(Some(1)));
    // This message needs none of the actor's parameters.
    shelf.post(&main, ShelfClear);
    assert_eq!(soon(shelf.look(&main, "b".to_owned())).await, Ok(None));
    assert_ne!(
        ShelfLook::<String, u8>::TYPE_HASH,
        ShelfLook::<u8, u8>::TYPE_HASH
    );
}

mod apart {
    use super::*;

    #[derive(Actor, Default)]
    pub(super) struct Door {
        opened: u64,
    }

    #[actor]
    impl Door {
        pub(super) async fn open(&mut self, cx: &Context<Self>) -> u64 {
            cx.handle().creak(cx).post();
            self.opened += 1;
            self.opened
        }

        async fn creak(&mut self, _cx: &Context<Self>) -> ActorResult {
            self.opened += 10;
            Ok(())
        }
    }
}

#[tokio::test]
async fn a_private_method_is_called_from_its_module_only() {
    // `DoorClientPrivate`, with the method `creak`, cannot be named here.
    use apart::DoorClient as _;
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let door = proc.spawn("door", apart::Door::default()).unwrap();
    assert_eq!(soon(door.open(&main)).await, Ok(1));
    assert_eq!(soon(door.open(&main)).await, Ok(12));
}

/// A method of an actor by the name of one that the references have would be shadowed by it, silently.
#[test]
fn the_macro_refuses_every_name_that_the_references_have_themselves() {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let macros = read("../hyperactor-macros/src/methods.rs");
    let (_, list) = macros.split_once("const RESERVED").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let mut methods = 0;
    for source in ["src/actor_ref.rs", "src/handle.rs", "src/restricted.rs"] {
        let source = read(source);
        let blocks = source.split("\nimpl<").filter(|block| {
            let head = block.lines().next().unwrap_or_default();
            ["> ActorRef<", "> ActorHandle<", "> RestrictedRef<"]
                .iter()
                .any(|of| head.contains(of))
        });
        for line in blocks.flat_map(str::lines) {
            let line = line.strip_prefix("    pub ").unwrap_or_default();
            let line = line.strip_prefix("async ").unwrap_or(line);
            if let Some(name) = line.strip_prefix("fn ") {
                let name = name.split(['<', '(']).next().unwrap();
                methods += 1;
                assert!(
                    list.contains(&format!("\"{name}\"")),
                    "add `{name}` to RESERVED in hyperactor-macros"
                );
            }
        }
    }
    assert!(
        methods > 20,
        "only {methods} methods were found; have the sources moved?"
    );
}

#[derive(Actor)]
#[actor(name = "methods.tank")]
struct Tank {
    level: u8,
    name: String,
}

#[actor]
impl Tank {
    #[actor(spawn)]
    fn new(level: u8, name: String) -> Result<Self, std::num::TryFromIntError> {
        // Only to have an error of another type.
        let level = i8::try_from(level)?.unsigned_abs();
        Ok(Self { level, name })
    }

    async fn read(&self, _cx: &Context<Self>) -> (u8, String) {
        (self.level, self.name.clone())
    }
}

#[derive(Actor)]
#[actor(name = "methods.bell")]
struct Bell(u64);

#[actor]
impl Bell {
    #[actor(spawn)]
    fn of(tone: u64) -> Self {
        Self(tone)
    }

    async fn ring(&self, _cx: &Context<Self>) -> u64 {
        self.0
    }
}

#[tokio::test]
async fn a_constructor_in_the_block_makes_the_actor_in_another_proc() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    ProcAgent::spawn_in(&b, Registry::new().with::<Tank>().with::<Bell>()).unwrap();
    let params = (7, "north".to_owned());
    let tank = spawn_remote::<Tank>(&main, b.proc_id(), "tank", params);
    let tank = soon(tank).await.unwrap();
    assert_eq!(soon(tank.read(&main)).await, Ok((7, "north".to_owned())));
    let bell = soon(spawn_remote::<Bell>(&main, b.proc_id(), "bell", 440)).await;
    assert_eq!(soon(bell.unwrap().ring(&main)).await, Ok(440));
    let params = (200, "south".to_owned());
    let refused = soon(spawn_remote::<Tank>(&main, b.proc_id(), "t", params)).await;
    assert_eq!(refused.unwrap_err().code(), "not-created");
}

/// Asks the next one, through a handle, before it answers.
#[derive(Actor, Default)]
struct Link {
    next: Option<ActorHandle<Link>>,
}

impl Handler<ActorHandle<Link>> for Link {
    async fn handle(&mut self, _cx: &Context<Self>, next: ActorHandle<Link>) -> ActorResult {
        self.next = Some(next);
        Ok(())
    }
}

#[actor]
impl Link {
    async fn round(&mut self, cx: &Context<Self>) -> Result<u64, String> {
        let Some(next) = &self.next else {
            return Ok(0);
        };
        match next.round(cx).await {
            Ok(answer) => answer.map(|count| count + 1),
            Err(error) => Err(error.code().to_owned()),
        }
    }
}

#[tokio::test]
async fn actors_that_wait_for_each_other_through_handles_are_told_so() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let links: Vec<_> = (0..3)
        .map(|at| proc.spawn(&format!("link-{at}"), Link::default()).unwrap())
        .collect();
    links[0].post(&main, links[1].clone()).unwrap();
    links[1].post(&main, links[2].clone()).unwrap();
    assert_eq!(soon(links[0].round(&main)).await, Ok(Ok(2)));
    links[2].post(&main, links[0].clone()).unwrap();
    // Not after the deadline, which is longer than a test waits for anything that happens at once.
    let answer = tokio::time::timeout(ASK_DEADLINE / 2, async { links[0].round(&main).await });
    assert_eq!(answer.await.unwrap(), Ok(Err("deadlock".to_owned())));
}
