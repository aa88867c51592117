//! Methods that cannot be messages.

use hyperactor_proc::{Actor, ActorResult, Context, OncePortRef, actor};

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn borrowed(&mut self, _cx: &Context<Self>, _name: &str) {}

    async fn any(&mut self, _cx: &Context<Self>, _name: impl Into<String>) {}

    async fn generic<T>(&mut self, _cx: &Context<Self>, _number: T) {}

    async fn taken_apart(&mut self, _cx: &Context<Self>, (_a, _b): (u8, u8)) {}

    async fn by_value(self, _cx: &Context<Self>) {}

    async fn context_by_value(&mut self, _cx: Context<Self>) {}

    async fn lends(&self, _cx: &Context<Self>) -> &str {
        "text"
    }

    async fn two_replies(&mut self, _cx: &Context<Self>, reply: u8) -> u8 {
        reply
    }

    async fn replies_twice(&mut self, _cx: &Context<Self>, reply: Option<OncePortRef<u8>>) -> u8 {
        drop(reply);
        0
    }

    #[actor(spawn)]
    async fn later() -> Self {
        Self
    }

    #[actor(spawn)]
    fn from_itself(&self) -> Self {
        Self
    }

    #[actor(spawn)]
    fn nothing() {}

    #[actor(spawned)]
    fn misspelt() -> Self {
        Self
    }

    async fn stop(&mut self, _cx: &Context<Self>) -> ActorResult {
        Ok(())
    }
}

fn main() {}
