//! What a message says: who sent it, as which one, and where it is entered in
//! the books; the rest is filled with what follows from that, and a checksum.
//!
//! ```text
//! words: incarnation | sequence | place | round | filler ... | checksum
//! ```
//!
//! A message of bytes is of a length that follows from the same four words.

use super::random::mix;
use bytemuck::{bytes_of, pod_read_unaligned};

/// A message of the typed rings: 64 bytes.
pub type Form = [u64; 8];

const HEADER: usize = 4;
/// Header and checksum.
pub const LEAST_BYTES: usize = 8 * (HEADER + 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Of its producer; each process has one of its own.
    pub incarnation: u64,
    /// Its number among that one's.
    pub sequence: u64,
    /// Its cell in the books.
    pub place: u64,
    /// The round of the books.
    pub round: u64,
}

impl Letter {
    fn header(self) -> [u64; HEADER] {
        [self.incarnation, self.sequence, self.place, self.round]
    }

    fn of_header(header: [u64; HEADER]) -> Letter {
        let [incarnation, sequence, place, round] = header;
        Letter { incarnation, sequence, place, round }
    }

    fn seed(self) -> u64 {
        mix(self.incarnation << 32 ^ self.sequence)
    }

    /// As a value.
    pub fn form(self) -> Form {
        let mut form = [0; 8];
        form[..HEADER].copy_from_slice(&self.header());
        for (i, word) in form[HEADER..7].iter_mut().enumerate() {
            *word = mix(self.seed().wrapping_add(i as u64));
        }
        form[7] = checksum(bytes_of::<[u64; 7]>(form.first_chunk().unwrap_or(&[0; 7])));
        form
    }

    /// Reads a value; `None` if it is not what somebody wrote.
    pub fn read_form(form: &Form) -> Option<Letter> {
        let body: &[u64; 7] = form.first_chunk()?;
        (checksum(bytes_of(body)) == form[7])
            .then(|| Letter::of_header([form[0], form[1], form[2], form[3]]))
    }

    /// As bytes, up to `max` of them.
    pub fn bytes(self, max: usize, into: &mut Vec<u8>) {
        let more = (max - LEAST_BYTES) as u64;
        let len = LEAST_BYTES + (self.seed() % (more + 1)) as usize;
        into.clear();
        into.extend(self.header().iter().flat_map(|word| word.to_ne_bytes()));
        let mut word = self.seed();
        while into.len() < len - 8 {
            word = mix(word.wrapping_add(1));
            let left = (len - 8 - into.len()).min(8);
            into.extend_from_slice(&word.to_ne_bytes()[..left]);
        }
        into.extend_from_slice(&checksum(into).to_ne_bytes());
    }

    /// Reads bytes; `None` if they are not what somebody wrote.
    pub fn read_bytes(bytes: &[u8]) -> Option<Letter> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        let header = body.first_chunk::<{ 8 * HEADER }>()?;
        (checksum(body) == u64::from_ne_bytes(*sum))
            .then(|| Letter::of_header(pod_read_unaligned(header)))
    }
}

/// Depends on every bit and on the length.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_ne_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    mix(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: Letter = Letter { incarnation: 3, sequence: 99, place: 1234, round: 7 };

    #[test]
    fn a_changed_bit_is_found() {
        let form = LETTER.form();
        assert_eq!(Letter::read_form(&form), Some(LETTER));
        for bit in 0..512 {
            let mut torn = form;
            torn[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(Letter::read_form(&torn), None);
        }
    }

    #[test]
    fn bytes_of_any_length_are_read_back() {
        let mut lengths = std::collections::HashSet::new();
        for sequence in 0..500 {
            let letter = Letter { sequence, ..LETTER };
            let mut bytes = Vec::new();
            letter.bytes(100, &mut bytes);
            assert!((LEAST_BYTES..=100).contains(&bytes.len()));
            lengths.insert(bytes.len());
            assert_eq!(Letter::read_bytes(&bytes), Some(letter));
            bytes[sequence as usize % 41] ^= 4;
            assert_eq!(Letter::read_bytes(&bytes), None);
            assert_eq!(Letter::read_bytes(&bytes[..sequence as usize % 40]), None);
        }
        assert_eq!(lengths.len(), 101 - LEAST_BYTES);
    }
}
