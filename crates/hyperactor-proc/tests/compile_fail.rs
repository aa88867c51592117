//! The usual mistakes, and what the compiler says of them: it names the fix.

#[test]
fn a_usual_mistake_is_explained_by_the_compiler() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    if cfg!(not(feature = "link-registration")) {
        cases.compile_fail("tests/ui/without_features/*.rs");
    }
}
