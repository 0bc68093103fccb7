//! Calls no host function.

fn nothing(input: &str) -> String {
    input.to_owned()
}
hookline::hook!(custom_hook, nothing);
