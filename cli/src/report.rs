//! What is printed: text while things happen, or one JSON document in the end.

use crate::{Error, Result};
use anstyle::Style;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

/// Where the output goes, and as what.
#[derive(Clone, Copy)]
pub struct Out {
    json: bool,
}

impl Out {
    /// Text, or JSON.
    pub fn new(json: bool) -> Out {
        Out { json }
    }

    /// The title of a step.
    pub fn title(self, title: &str) -> Result<()> {
        let bold = Style::new().bold();
        self.text(format_args!("{bold}{title}{bold:#}"))
    }

    /// Text. Nothing in JSON.
    pub fn text(self, text: impl Display) -> Result<()> {
        if !self.json {
            writeln!(anstream::stdout(), "{text}")?;
        }
        Ok(())
    }

    /// A JSON document. Nothing in text.
    pub fn document(self, document: &impl Serialize) -> Result<()> {
        if self.json {
            writeln!(anstream::stdout(), "{}", serde_json::to_string_pretty(document)?)?;
        }
        Ok(())
    }

    /// That it failed, for whoever reads only the document.
    pub fn failure(self, error: &Error) {
        #[derive(Serialize)]
        struct Failure {
            ok: bool,
            error: String,
        }
        let _ = self.document(&Failure { ok: false, error: error.to_string() });
    }

    /// One or the other.
    pub fn either(self, report: &(impl Serialize + Display)) -> Result<()> {
        self.text(report)?;
        self.document(report)
    }

    /// A bar for a long step, on standard error: none in JSON or when that is
    /// no terminal. It vanishes when it is dropped.
    pub fn progress(self, len: u64, what: &'static str) -> Bar {
        if self.json {
            return Bar(ProgressBar::hidden());
        }
        let template = "   {msg:24} {bar:24} {human_pos} of {human_len}";
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::new(len).with_message(what);
        Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }
}

/// A progress bar that leaves nothing behind.
pub struct Bar(ProgressBar);

impl Bar {
    /// How far it is.
    pub fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    /// What it is at.
    pub fn doing(&self, what: String) {
        self.0.set_message(what);
    }

    /// Something else is printed meanwhile.
    pub fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        self.0.suspend(print)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A number with its thousands apart.
pub struct Grouped(pub u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut grouped = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

/// In milliseconds, for JSON.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// `n` of something per second of `elapsed`.
pub fn per_second(n: u64, elapsed: Duration) -> u64 {
    (n as f64 / elapsed.as_secs_f64().max(1e-9)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(Grouped(n).to_string(), text);
        }
        assert_eq!(format!("{:>6}", Grouped(1000)), " 1,000");
    }
}
