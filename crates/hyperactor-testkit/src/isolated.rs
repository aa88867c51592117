//! A test in a process of its own, also where the runner puts all tests of a file into one.

use std::env;
use std::process::{Command, Stdio};

/// Tells the copy of the test program that it is the one that does the work.
const VARIABLE: &str = "HYPERACTOR_TESTKIT_ISOLATED";

/// Runs the body of a test in a process of its own.
///
/// What a test does to its process (open files, children, signals, the environment) meets every other
/// test that libtest runs in the same program. This starts the test program again for one test only.
/// `name` is the test's full name as the runner lists it, such as `routes::tests::survives`.
///
/// ```no_run
/// #[test]
/// fn nothing_is_left_open() {
///     hyperactor_testkit::isolated("nothing_is_left_open", || {
///         let guard = hyperactor_testkit::LeakGuard::new();
///         // …
///         guard.assert_settled_blocking();
///     });
/// }
/// ```
///
/// # Panics
///
/// When the body panics there, when its process dies, and when no test of this name was run.
#[track_caller]
pub fn isolated(name: &str, body: impl FnOnce()) {
    if env::var(VARIABLE).is_ok_and(|which| which == name) {
        body();
        return;
    }
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => panic!("cannot find the test program itself: {error}"),
    };
    let output = Command::new(program)
        .args([
            name,
            "--exact",
            "--nocapture",
            "--include-ignored",
            "--test-threads",
            "1",
        ])
        .env(VARIABLE, name)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => panic!("cannot start the test program again: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    // Marked, so that nobody who counts results takes the inner runner's for the outer one's.
    for line in text
        .lines()
        .chain(String::from_utf8_lossy(&output.stderr).lines())
    {
        eprintln!("| {line}");
    }
    assert!(
        output.status.success(),
        "`{name}` failed in its own process: {}",
        output.status
    );
    assert!(
        text.contains("running 1 test"),
        "no test is called `{name}`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_runs_in_another_process() {
        let parent = env::var("HYPERACTOR_TESTKIT_PARENT").ok();
        isolated("isolated::tests::the_body_runs_in_another_process", || {
            assert_eq!(
                env::var(VARIABLE).unwrap(),
                "isolated::tests::the_body_runs_in_another_process"
            );
        });
        assert_eq!(parent, None);
    }

    #[test]
    #[should_panic(expected = "failed in its own process")]
    fn a_panic_there_is_a_panic_here() {
        isolated("isolated::tests::a_panic_there_is_a_panic_here", || {
            std::process::exit(101)
        });
    }

    #[test]
    #[should_panic(expected = "no test is called `isolated::tests::no_such_test`")]
    fn a_misspelt_name_is_found() {
        isolated("isolated::tests::no_such_test", || unreachable!());
    }
}
