//! The program `compare`: see `hyperactor_benches::compare`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hyperactor_benches::compare::main()
}
