//! Values of options that several commands have.

/// A length of time, in seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0.001 to 3600".to_owned()),
    }
}

/// Where the two sides of a measurement run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Wherever the scheduler puts them.
    Nowhere,
    On([usize; 2]),
}

/// Two CPUs, or none.
pub fn pin(text: &str) -> Result<Pin, String> {
    if text == "none" {
        return Ok(Pin::Nowhere);
    }
    let both: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    let both = both.ok().and_then(|both| both.try_into().ok());
    both.map(Pin::On).ok_or("expected two numbers, or none".to_owned())
}

/// The CPUs of the two sides: those that were asked for, or the first of these and the first
/// that is not of the same core.
pub fn places(
    pin: Option<Pin>,
    cpus: &[usize],
    same_core: impl Fn(usize, usize) -> bool,
) -> Option<[usize; 2]> {
    match pin {
        Some(Pin::Nowhere) => None,
        Some(Pin::On(both)) => Some(both),
        None => {
            let (&here, others) = cpus.split_first()?;
            let apart = others.iter().find(|there| !same_core(here, **there));
            Some([here, *apart.or(others.first())?])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_have_a_place_unless_they_shall_not() {
        let alone = |_, _| false;
        assert_eq!(places(None, &[3, 5, 6], alone), Some([3, 5]));
        assert_eq!(places(None, &[3, 5, 6], |one, other| one + other == 8), Some([3, 6]));
        assert_eq!(places(None, &[3, 5], |_, _| true), Some([3, 5]));
        assert_eq!(places(None, &[3], alone), None);
        assert_eq!(places(pin("none").ok(), &[3, 5], alone), None);
        assert_eq!(places(pin("5,3").ok(), &[3, 5], alone), Some([5, 3]));
        assert!(pin("1").is_err() && pin("1,2,3").is_err() && pin("a,b").is_err());
    }
}
