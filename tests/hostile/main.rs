//! Memory that a hostile or broken peer has written to: whatever is in it,
//! operations return, without a panic and without leaving the mapping, with an
//! error that says where, or with what a correct peer could have caused.
//!
//! Everything random comes from a seed, which a failure prints.
//! `SLIPRING_ROUNDS` replaces the number of rounds of every test here.

#[path = "../support/mod.rs"]
mod support;

mod catalog;
mod flips;
mod guard;
mod objects;
mod outside;
mod scribble;
mod watch;
mod words;

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    match support::role() {
        Some((role, _)) if role == "scribble" => scribble::child(),
        Some((role, _)) => panic!("unknown role {role}"),
        None => {}
    }
}
