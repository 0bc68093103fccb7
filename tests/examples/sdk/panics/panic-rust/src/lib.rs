//! Looks for a rule that is not there.

fn nothing(input: &str) -> String {
    if input.is_empty() {
        return input.to_owned();
    }
    hookline::fail("the rule is missing")
}
hookline::hook!(custom_hook, nothing);
