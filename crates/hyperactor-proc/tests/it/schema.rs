//! Two builds of one program that disagree on the shape of a message, as two modules: they notice.

use hyperactor_mailbox::{NotDelivered, Outcome, wire_hash};
use hyperactor_proc::{
    Actor, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, PortRef,
};
use serde::{Deserialize, Serialize};

use crate::common::{Wire, soon};

/// The same name, and fields of the caller's choice.
macro_rules! build {
    ($build:ident, $($item:item)*) => {
        mod $build {
            #![allow(unused_imports, unused_qualifications, reason = "some builds need the one, or show the other")]
            use super::*;
            $(#[derive(Message, Serialize, Deserialize)] #[allow(dead_code, reason = "only its shape counts")] $item)*
        }
    };
}

build! { first, #[message(name = "demo.Add")] pub(crate) struct Add { pub(crate) amount: u32, pub(crate) times: u8 } }
build! { again, #[message(name = "demo.Add")] pub(crate) struct Add { pub(crate) amount: u32, pub(crate) times: u8 } }
build! { wider, #[message(name = "demo.Add")] pub(crate) struct Add { pub(crate) amount: u64, pub(crate) times: u8 } }
build! { longer, #[message(name = "demo.Add")] pub(crate) struct Add { amount: u32, times: u8, note: Option<String> } }
build! { swapped, #[message(name = "demo.Add")] pub(crate) struct Add { times: u8, amount: u32 } }
build! { named_else, #[message(name = "demo.Add")] pub(crate) struct Add { sum: u32, times: u8 } }
build! { renamed, #[message(name = "demo.Add")] pub(crate) struct Add { #[serde(rename = "amount")] sum: u32, times: u8 } }
build! { skipping, #[message(name = "demo.Add")] pub(crate) struct Add { amount: u32, #[serde(skip)] cached: u64, times: u8 } }
build! { bare, #[message(name = "demo.Add")] pub(crate) struct Add(u32, u8); }
build! { nothing, #[message(name = "demo.Add")] pub(crate) struct Add; }
build! { converted, #[message(name = "demo.Add")] #[serde(from = "u64", into = "u64")] #[derive(Clone)] pub(crate) struct Add { amount: u32, times: u8 } }

impl From<u64> for converted::Add {
    fn from(_: u64) -> Self {
        unreachable!("only its shape counts")
    }
}
impl From<converted::Add> for u64 {
    fn from(_: converted::Add) -> Self {
        unreachable!("only its shape counts")
    }
}

#[test]
fn a_shape_is_its_fields_their_types_and_their_order() {
    let shape = first::Add::SCHEMA_HASH;
    assert_eq!(again::Add::SCHEMA_HASH, shape);
    assert_eq!(renamed::Add::SCHEMA_HASH, shape);
    assert_eq!(skipping::Add::SCHEMA_HASH, shape);
    let others = [
        shape,
        wider::Add::SCHEMA_HASH,
        longer::Add::SCHEMA_HASH,
        swapped::Add::SCHEMA_HASH,
        named_else::Add::SCHEMA_HASH,
        bare::Add::SCHEMA_HASH,
        nothing::Add::SCHEMA_HASH,
        converted::Add::SCHEMA_HASH,
    ];
    let distinct: std::collections::HashSet<_> = others.iter().collect();
    assert_eq!(distinct.len(), others.len());
    // The name, and so the port, is one and the same.
    assert_eq!(wider::Add::port(), first::Add::port());
    assert_ne!(wire_hash::<wider::Add>(), wire_hash::<first::Add>());
}

build! { colours, #[message(name = "Colour")] pub(crate) enum Colour { Red, Green(u8), Blue { depth: u8 } } }
build! { more_colours, #[message(name = "Colour")] pub(crate) enum Colour { Red, Green(u8), Blue { depth: u8 }, White } }
build! { other_order, #[message(name = "Colour")] pub(crate) enum Colour { Green(u8), Red, Blue { depth: u8 } } }
build! { other_fields, #[message(name = "Colour")] pub(crate) enum Colour { Red, Green(u8), Blue { depth: u16 } } }

#[test]
fn the_shape_of_an_enum_is_its_variants_and_their_order() {
    let shapes = [
        colours::Colour::SCHEMA_HASH,
        more_colours::Colour::SCHEMA_HASH,
        other_order::Colour::SCHEMA_HASH,
        other_fields::Colour::SCHEMA_HASH,
    ];
    let distinct: std::collections::HashSet<_> = shapes.iter().collect();
    assert_eq!(distinct.len(), shapes.len());
}

/// Known by its name alone.
#[derive(Serialize, Deserialize)]
struct Opaque;

build! { line,
    pub(crate) struct Point { x: u32, y: u32 }
    pub(crate) struct Line { from: Point, to: Option<Point>, style: Opaque }
}
build! { line_of_other_points,
    pub(crate) struct Point { x: u32, y: u64 }
    pub(crate) struct Line { from: Point, to: Option<Point>, style: Opaque }
}
build! { line_of_other_style,
    pub(crate) struct Line { from: line::Point, to: Option<line::Point>, style: crate::schema::Other }
}
build! { line_written_otherwise,
    pub(crate) struct Line { from: super::line::Point, to: std::option::Option<line::Point>, style: crate::schema::Opaque }
}

#[derive(Serialize, Deserialize)]
struct Other;

#[test]
fn the_shape_goes_as_deep_as_there_are_messages_and_names_what_is_none() {
    let shape = line::Line::SCHEMA_HASH;
    assert_ne!(line_of_other_points::Line::SCHEMA_HASH, shape);
    assert_ne!(line_of_other_style::Line::SCHEMA_HASH, shape);
    assert_eq!(line_written_otherwise::Line::SCHEMA_HASH, shape);
}

build! { tree, pub(crate) struct Tree { value: u8, children: Vec<Tree> } }
build! { other_tree, pub(crate) struct Tree { value: u16, children: Vec<Tree> } }

#[test]
fn a_type_that_contains_itself_has_a_shape() {
    assert_ne!(tree::Tree::SCHEMA_HASH, other_tree::Tree::SCHEMA_HASH);
}

build! { circle,
    pub(crate) struct Folder { name: String, files: Vec<File> }
    pub(crate) struct File { size: u64, #[message(by_name)] within: Option<Box<Folder>> }
}

#[test]
fn types_that_contain_each_other_have_shapes_if_one_goes_by_name() {
    assert_ne!(circle::Folder::SCHEMA_HASH, circle::File::SCHEMA_HASH);
}

build! { generic, pub(crate) struct Pair<T> { a: T, b: Vec<T> } }

#[test]
fn the_shape_of_a_generic_type_is_that_of_its_parameters() {
    type Of<T> = generic::Pair<T>;
    assert_ne!(<Of<first::Add>>::SCHEMA_HASH, <Of<wider::Add>>::SCHEMA_HASH);
    assert_eq!(<Of<first::Add>>::SCHEMA_HASH, <Of<again::Add>>::SCHEMA_HASH);
}

#[test]
fn the_shape_of_a_port_is_that_of_what_it_takes() {
    assert_ne!(
        <OncePortRef<first::Add>>::SCHEMA_HASH,
        <OncePortRef<wider::Add>>::SCHEMA_HASH
    );
    assert_ne!(
        <PortRef<first::Add>>::SCHEMA_HASH,
        <PortRef<wider::Add>>::SCHEMA_HASH
    );
}

/// The receiver, of the second build.
#[derive(Actor, Default)]
#[actor(messages(wider::Add))]
struct Adder;

impl Handler<wider::Add> for Adder {
    async fn handle(&mut self, _cx: &Context<Self>, _: wider::Add) -> ActorResult {
        panic!("a message of another shape was handled")
    }
}

/// What the sender, of the first build, takes it for.
#[derive(Actor)]
#[actor(messages(first::Add))]
struct Believed;

impl Handler<first::Add> for Believed {
    async fn handle(&mut self, _cx: &Context<Self>, _: first::Add) -> ActorResult {
        Ok(())
    }
}

#[tokio::test]
async fn a_message_of_another_build_comes_back_with_both_shapes() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let adder = b.spawn("adder", Adder).unwrap().bind();
    let adder: ActorRef<Believed> = ActorRef::attest(adder.actor_id().clone());
    let message = first::Add {
        amount: 1,
        times: 2,
    };
    // The bytes alone would decode: a number below 128 is one byte in either type.
    let Outcome::NotDelivered(reason) = soon(adder.send(&main, message)).await else {
        panic!("a message of another shape was delivered");
    };
    let NotDelivered::TypeMismatch {
        expected, found, ..
    } = &*reason
    else {
        panic!("{reason}");
    };
    let with_schema = |hash: u64| format!("demo.Add (schema {:08x})", hash & 0xffff_ffff);
    assert_eq!(*expected, with_schema(wider::Add::SCHEMA_HASH));
    assert_eq!(*found, with_schema(first::Add::SCHEMA_HASH));
    let text = reason.to_string();
    assert!(text.ends_with("different versions of that type"), "{text}");
}
