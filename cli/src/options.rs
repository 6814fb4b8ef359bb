//! Values of options that several commands have.

/// A length of time, in seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0.001 to 3600".to_owned()),
    }
}

/// Two CPUs, for the two sides of a measurement.
pub fn cpus(text: &str) -> Result<[usize; 2], String> {
    let both: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    both.ok().and_then(|both| both.try_into().ok()).ok_or("expected two numbers".to_owned())
}
