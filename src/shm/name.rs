//! Names of segments and objects.

use crate::error::{Error, Result};

/// Longest name of a segment, in bytes.
pub const MAX_SEGMENT_NAME: usize = 200;
/// Longest name of an object, in bytes.
pub const MAX_OBJECT_NAME: usize = 120;

/// Starts the private names of segments that are being made. A name that users
/// give can't: it has no leading dot.
const PRIVATE_PREFIX: &str = ".slipring-";

/// Checks the name of a segment.
pub(crate) fn check_segment(name: &str) -> Result<()> {
    check(name, MAX_SEGMENT_NAME, "longer than 200 bytes")
}

/// Checks the name of an object.
pub(crate) fn check_object(name: &str) -> Result<()> {
    check(name, MAX_OBJECT_NAME, "longer than 120 bytes")
}

fn check(name: &str, max: usize, too_long: &'static str) -> Result<()> {
    let why = if name.is_empty() {
        "empty"
    } else if name.len() > max {
        too_long
    } else if name.starts_with('.') {
        "starts with a dot"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        "has a character outside [A-Za-z0-9._-]"
    } else {
        return Ok(());
    };
    Err(Error::NameInvalid { name: name.to_owned(), why })
}

/// A new private name.
pub(crate) fn private() -> String {
    format!("{PRIVATE_PREFIX}{:016x}", crate::os::random())
}

/// Private names that exist now.
pub(crate) fn private_names() -> Vec<String> {
    crate::os::shm::names_with_prefix(PRIVATE_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "orders", "A-1.b_2", &"x".repeat(200)] {
            assert!(check_segment(good).is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "a/b", "a b", "é", "a\0", &"x".repeat(201), ".."] {
            let Err(Error::NameInvalid { name, .. }) = check_segment(bad) else {
                panic!("{bad} passed");
            };
            assert_eq!(name, bad);
        }
        assert!(check_segment(&private()).is_err());
        assert!(check_object(&"x".repeat(120)).is_ok());
        assert!(check_object(&"x".repeat(121)).is_err());
    }
}
