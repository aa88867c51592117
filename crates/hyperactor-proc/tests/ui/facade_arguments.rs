//! Facades that the derive cannot serve.

use hyperactor_proc::Facade;

#[derive(Facade)]
struct Empty;

#[derive(Facade)]
#[facade(message(u8))]
struct Misspelt;

#[derive(Facade)]
#[facade(messages(u8, u8))]
struct Twice;

#[derive(Facade)]
#[facade(messages(T))]
struct Generic<T>(T);

fn main() {}
