//! What the derives generate, seen from a user's crate.

use hyperactor_mailbox::{combine, type_hash};
use hyperactor_proc::{Actor, ActorResult, Context, Exports, Handler, Message, OncePortRef, Proc};
use serde::{Deserialize, Serialize};

use crate::common::soon;

#[derive(Message, Serialize, Deserialize)]
struct Plain;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "stable.name")]
enum Named {
    One { number: u8 },
    Two(String),
}

#[derive(Message, Serialize, Deserialize)]
struct Wrapper<T>(T);

#[derive(Message, Serialize, Deserialize)]
struct Pair<A, B: Clone, const N: usize> {
    a: Vec<A>,
    b: Option<B>,
}

mod inner {
    use super::*;

    #[derive(Message, Serialize, Deserialize)]
    pub(super) struct Plain;
}

#[test]
fn a_message_is_named_by_its_package_and_type_wherever_in_the_package_it_stands() {
    assert_eq!(Plain::type_name(), "hyperactor-proc::Plain");
    assert_eq!(Plain::TYPE_HASH, type_hash("hyperactor-proc::Plain"));
    assert_eq!(inner::Plain::TYPE_HASH, Plain::TYPE_HASH);
}

#[test]
fn a_given_name_is_the_whole_name() {
    assert_eq!(Named::type_name(), "stable.name");
    assert_eq!(Named::TYPE_HASH, type_hash("stable.name"));
    let named = [Named::One { number: 1 }, Named::Two(String::new())];
    assert_eq!(postcard::to_stdvec(&named[0]).unwrap(), [0, 1]);
    assert_eq!(postcard::to_stdvec(&named[1]).unwrap(), [1, 0]);
}

#[test]
fn a_generic_message_differs_by_its_parameters() {
    assert_eq!(
        Wrapper::<u8>::TYPE_HASH,
        combine(type_hash("hyperactor-proc::Wrapper"), u8::TYPE_HASH)
    );
    assert_ne!(Wrapper::<u8>::TYPE_HASH, Wrapper::<u16>::TYPE_HASH);
    assert_ne!(Pair::<u8, u16, 1>::TYPE_HASH, Pair::<u8, u16, 2>::TYPE_HASH);
    assert_eq!(
        Pair::<u8, Wrapper<Plain>, 3>::type_name_of(),
        "hyperactor-proc::Pair<u8, hyperactor-proc::Wrapper<hyperactor-proc::Plain>, 3>"
    );
}

impl Clone for Wrapper<Plain> {
    fn clone(&self) -> Self {
        Self(Plain)
    }
}

impl<A: Message, B: Message + Clone, const N: usize> Pair<A, B, N> {
    fn type_name_of() -> String {
        Self::type_name().into_owned()
    }
}

/// A generic actor, with bounds.
#[derive(Actor)]
#[actor(messages(Wrapper<T>, Last<T>))]
struct Keeper<T: Message + Clone> {
    last: Option<T>,
}

#[derive(Message, Serialize, Deserialize)]
struct Last<T: Message>(
    // Serde would ask for more than a reference needs.
    #[serde(bound = "")] OncePortRef<Option<T>>,
);

impl<T: Message + Clone> Handler<Wrapper<T>> for Keeper<T> {
    async fn handle(&mut self, _cx: &Context<Self>, Wrapper(value): Wrapper<T>) -> ActorResult {
        self.last = Some(value);
        Ok(())
    }
}

impl<T: Message + Clone> Handler<Last<T>> for Keeper<T> {
    async fn handle(&mut self, cx: &Context<Self>, Last(reply): Last<T>) -> ActorResult {
        cx.reply(reply, self.last.clone());
        Ok(())
    }
}

#[tokio::test]
async fn a_generic_actor_with_bounds_exports_generic_messages() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let keeper = Keeper { last: None };
    let keeper = proc.spawn("keeper", keeper).unwrap().bind();
    keeper.post(&main, Wrapper("text".to_owned()));
    assert_eq!(
        soon(keeper.ask(&main, Last)).await,
        Ok(Some("text".to_owned()))
    );
}

#[derive(Actor)]
#[actor(name = "known.as")]
struct Renamed;

#[test]
fn an_actor_is_known_by_its_path_or_by_the_name_it_was_given() {
    assert_eq!(Renamed::type_name(), "known.as");
    assert!(Keeper::<u8>::type_name().ends_with("derives::Keeper<u8>"));
}
