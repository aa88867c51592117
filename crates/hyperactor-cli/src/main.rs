//! The program `hyperactor`.

fn main() {}
