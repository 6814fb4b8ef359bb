//! What is sent: messages that hold a number.

use crate::Result;
use slipring::Pod;
use std::fmt::Debug;
use std::hint::black_box;

/// Sizes of messages, in bytes.
pub const SIZES: [usize; 7] = [8, 48, 64, 256, 1024, 4096, 65536];

/// The expression, with `$message` as the type of the message of this many bytes.
macro_rules! with_message {
    ($bytes:expr, $message:ident => $expression:expr) => {
        with_message!($bytes, $message => $expression,
            8: 1, 48: 6, 64: 8, 256: 32, 1024: 128, 4096: 512, 65536: 8192)
    };
    ($bytes:expr, $message:ident => $expression:expr, $($size:literal: $words:literal),*) => {
        match $bytes {
            $($size => {
                type $message = [u64; $words];
                $expression
            })*
            bytes => Err(format!("no messages of {bytes} bytes").into()),
        }
    };
}
pub(crate) use with_message;

/// A message: one number in every word, or in the first and the last of a long
/// one.
pub trait Message: Pod + Debug {
    /// Writes the number.
    fn stamp(&mut self, number: u64);

    /// The message with this number, made out of `template`: a short one anew, as
    /// who has its fields at hand does; of a long one only the number is written,
    /// for to fill it is not what is measured.
    fn numbered(template: &mut Self, number: u64) -> Self;

    /// The number of a message that was received by value.
    fn into_number(self) -> Result<u64>;

    /// The number, unless the message is torn.
    fn number(&self) -> Result<u64>;

    /// Writes the number to the first word alone.
    fn touch(&mut self, number: u64);

    /// The first word.
    fn first(&self) -> u64;
}

/// Up to this many words are all written and read.
const SHORT: usize = 8;

impl<const N: usize> Message for [u64; N]
where
    [u64; N]: Pod + Debug,
{
    #[inline(always)]
    fn stamp(&mut self, number: u64) {
        let step = if N <= SHORT { 1 } else { N - 1 };
        self.iter_mut().step_by(step).for_each(|word| *word = number);
    }

    #[inline(always)]
    fn numbered(template: &mut Self, number: u64) -> Self {
        if N <= SHORT {
            return std::array::from_fn(|_| number);
        }
        template.stamp(number);
        *template
    }

    #[inline(always)]
    fn into_number(self) -> Result<u64> {
        // Who looks at two words of a long one would have only those copied.
        if N <= SHORT { self.number() } else { black_box(self).number() }
    }

    #[inline(always)]
    fn number(&self) -> Result<u64> {
        let step = if N <= SHORT { 1 } else { N - 1 };
        let first = self[0];
        if self.iter().step_by(step).all(|word| *word == first) { Ok(first) } else { torn() }
    }

    #[inline(always)]
    fn touch(&mut self, number: u64) {
        self[0] = number;
    }

    #[inline(always)]
    fn first(&self) -> u64 {
        self[0]
    }
}

/// The same for messages of bytes: a number in the first and the last eight.
pub fn stamp_bytes(message: &mut [u8], number: u64) {
    if let Some(first) = message.first_chunk_mut() {
        *first = number.to_ne_bytes();
    }
    if let Some(last) = message.last_chunk_mut() {
        *last = number.to_ne_bytes();
    }
}

/// The number, if the message is whole and this long.
pub fn number_of_bytes(message: &[u8], len: usize) -> Result<u64> {
    match (message.first_chunk(), message.last_chunk()) {
        (Some(first), Some(last)) if first == last && message.len() == len => {
            Ok(u64::from_ne_bytes(*first))
        }
        _ => torn(),
    }
}

#[cold]
fn torn() -> Result<u64> {
    Err("a message arrived torn".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<M: Message>() -> Result<()> {
        let mut message = M::zeroed();
        message.stamp(7);
        assert_eq!((message.number()?, message.first()), (7, 7));
        let other = M::numbered(&mut message, 9);
        assert_eq!((other.number()?, other.into_number()?), (9, 9));
        message.touch(8);
        assert_eq!(message.first(), 8);
        // One word agrees with itself.
        assert_eq!(message.number().is_err(), size_of::<M>() > 8);
        Ok(())
    }

    #[test]
    fn every_size_holds_a_number_and_notices_when_it_is_torn() {
        for bytes in SIZES {
            with_message!(bytes, M => check::<M>()).unwrap();
        }
        assert!(with_message!(9, M => check::<M>()).is_err());
        let middle = [1u64, 1, 2, 1];
        assert!(middle.number().is_err());
    }

    #[test]
    fn bytes_hold_a_number_and_notice_when_they_are_torn() {
        for len in [8, 12, 16, 100] {
            let mut message = vec![0; len];
            stamp_bytes(&mut message, 0x0706_0504_0302_0101);
            // Where the two overlap, the last one wins.
            assert_eq!(number_of_bytes(&message, len).is_ok(), len != 12);
            assert!(number_of_bytes(&message, len + 1).is_err());
            message[0] ^= 1;
            assert_eq!(number_of_bytes(&message, len).is_err(), len != 8);
        }
        assert!(number_of_bytes(&[], 0).is_err());
    }
}
