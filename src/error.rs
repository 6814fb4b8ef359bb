//! What can go wrong, and what the caller needs to act on it.

use std::fmt;
use std::io;

/// The kind of an object and the shape of its elements, as the catalog of a
/// segment records them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `"queue"`, `"pipe"`, `"value"`, `"array"` or `"lock"`.
    pub kind: &'static str,
    /// Size of one element in bytes; 1 for byte messages.
    pub size: usize,
    /// Alignment of one element in bytes.
    pub align: usize,
    /// Hash of the element's type name, without module paths.
    pub name_hash: u64,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of elements of {} bytes, alignment {}, type hash {:016x}",
            self.kind, self.size, self.align, self.name_hash
        )
    }
}

/// Everything that can fail outside the exchange of messages.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The name is not one: `[A-Za-z0-9._-]`, 1 to 200 bytes, no leading dot.
    NameInvalid {
        /// The name as given.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A segment of this name exists. Open it, or unlink it first.
    AlreadyExists {
        /// The segment.
        name: String,
    },
    /// No segment of this name exists. Create it first.
    NotFound {
        /// The segment.
        name: String,
    },
    /// The segment belongs to another user, is open to everybody, or its mode
    /// does not let this process in.
    PermissionDenied {
        /// The segment.
        name: String,
        /// What was in the way.
        why: &'static str,
    },
    /// The shared-memory file system can't hold the segment. Nothing is left
    /// behind.
    NoSpace {
        /// Bytes that the segment needs.
        needed: u64,
        /// Bytes that were free.
        available: u64,
    },
    /// The file is shorter than its header says.
    Truncated {
        /// Length by the header, in bytes.
        expected: u64,
        /// Length of the file, in bytes.
        found: u64,
    },
    /// The file is not a slipring segment.
    NotASegment {
        /// The file.
        name: String,
    },
    /// The segment was made by a build with another layout.
    LayoutVersion {
        /// The version in the segment.
        found: u32,
        /// The version that this build speaks.
        expected: u32,
    },
    /// The segment sleeps another way than this build or system can: see
    /// [`WaitMode`](crate::WaitMode).
    WaitMode {
        /// How the segment's processes sleep.
        found: &'static str,
        /// How this process would.
        expected: &'static str,
    },
    /// The object is of another kind or element type.
    TypeMismatch {
        /// The object.
        object: String,
        /// What was asked for.
        expected: Box<Shape>,
        /// What the catalog says.
        found: Box<Shape>,
    },
    /// The segment has no object of this name.
    ObjectUnknown {
        /// The object.
        object: String,
        /// The objects that it has.
        known: Vec<String>,
    },
    /// As many processes are attached as the segment was made for.
    ParticipantsFull {
        /// Size of the table.
        max: usize,
    },
    /// The end of a pipe, or an array in this attachment, is in use.
    Busy {
        /// What is in use.
        what: &'static str,
        /// Process that holds it, as it named itself; 0 if unknown.
        pid: u32,
    },
    /// No living process holds the segment, and the caller asked not to take
    /// over such a one.
    Stale {
        /// The segment.
        name: String,
    },
    /// Shared memory holds what no correct peer writes.
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Where: an offset in bytes, or a slot number, as `what` says.
        at: u64,
    },
    /// A message is longer than the ring takes.
    TooLarge {
        /// Length of the message in bytes.
        len: usize,
        /// Longest that fits, in bytes.
        max: usize,
    },
    /// The caller's buffer is shorter than the message, which is kept.
    BufferTooSmall {
        /// Length of the message in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        len: usize,
    },
    /// An index or range lies outside an array.
    OutOfRange {
        /// The index, or the range's last one.
        index: usize,
        /// Length of the array in elements.
        len: usize,
    },
    /// A slice is not as long as the array that it is to replace.
    Length {
        /// Length of the slice in elements.
        found: usize,
        /// Length of the array in elements.
        expected: usize,
    },
    /// A declaration can't be met: zero capacity, a size that overflows, a
    /// second object of the same name, an alignment above 64.
    Declaration {
        /// The object.
        object: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The end of a one-way pipe was asked for what only the other does.
    OneWay {
        /// What this end does: `"sends"` or `"receives"`.
        end: &'static str,
    },
    /// A process died holding the lock. What it protects, such as the elements
    /// of an array, may be half-changed: take the lock, put it in order and
    /// make it clean, or overwrite the whole array.
    Poisoned,
    /// The deadline passed.
    Timeout,
    /// The operating system refused.
    Os {
        /// The call that failed.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NameInvalid { name, why } => write!(f, "invalid name {name:?}: {why}"),
            Error::AlreadyExists { name } => {
                write!(f, "segment {name:?} already exists: open it, or unlink it first")
            }
            Error::NotFound { name } => {
                write!(f, "segment {name:?} does not exist: create it first")
            }
            Error::PermissionDenied { name, why } => {
                write!(f, "segment {name:?} may not be used: {why}")
            }
            Error::NoSpace { needed, available } => {
                write!(f, "no space in shared memory: {needed} bytes needed, {available} available")
            }
            Error::Truncated { expected, found } => write!(
                f,
                "segment is truncated: its header says {expected} bytes, the file has {found}"
            ),
            Error::NotASegment { name } => write!(f, "{name:?} is not a slipring segment"),
            Error::LayoutVersion { found, expected } => {
                write!(f, "layout version {found}, this build expects {expected}")
            }
            Error::WaitMode { found, expected } => {
                write!(f, "the segment's processes sleep by {found}, this process by {expected}")
            }
            Error::TypeMismatch { object, expected, found } => {
                write!(f, "object {object:?} is a {found}; asked for a {expected}")
            }
            Error::ObjectUnknown { object, known } if object.is_empty() => {
                write!(
                    f,
                    "the segment has {} objects, not one: open it by `Segment::open`, and ask for \
                     one of {known:?}",
                    known.len()
                )
            }
            Error::ObjectUnknown { object, known } => {
                write!(f, "no object {object:?} in the segment; it has {known:?}")
            }
            Error::ParticipantsFull { max } => {
                write!(f, "all {max} participant entries of the segment are in use")
            }
            Error::Busy { what, pid: 0 } => write!(f, "{what} is in use"),
            Error::Busy { what, pid } => write!(f, "{what} is in use by process {pid}"),
            Error::Stale { name } => write!(f, "no living process holds segment {name:?}"),
            Error::Corrupt { what, at } => write!(f, "shared memory is corrupt: {what} at {at}"),
            Error::TooLarge { len, max } => {
                write!(f, "message of {len} bytes is too large, at most {max} fit")
            }
            Error::BufferTooSmall { needed, len } => {
                write!(f, "message of {needed} bytes does not fit in a buffer of {len}; it is kept")
            }
            Error::OutOfRange { index, len } => {
                write!(f, "index {index} is outside an array of {len} elements")
            }
            Error::Length { found, expected } => {
                write!(f, "a slice of {found} elements can't replace an array of {expected}")
            }
            Error::Declaration { object, why } => write!(f, "object {object:?}: {why}"),
            Error::OneWay { end } => write!(f, "this end of a one-way pipe only {end}"),
            Error::Poisoned => f.write_str(
                "a process died holding the lock, and what it protects may be half-changed: \
                 lock it, put it in order, and make it clean",
            ),
            Error::Timeout => f.write_str("the deadline passed"),
            Error::Os { call, source } => write!(f, "{call}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Error {
    pub(crate) fn os(call: &'static str, errno: rustix::io::Errno) -> Error {
        Error::Os { call, source: errno.into() }
    }
}

/// Result of everything outside the exchange of messages.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// Errors are boxed where they stand beside a message or may stand in its place: one
// that is dropped by its address would keep the message out of registers.

/// Why a message was not sent. The message comes back: `V` is the message
/// itself, or `()` where the caller still has it, or the number of messages
/// sent before the failure for `send_many`.
pub enum SendError<V> {
    /// The ring is full (only from the forms that do not wait).
    Full(V),
    /// Nobody will ever receive it: the queue was closed, or the other end is
    /// gone.
    Closed(V),
    /// The deadline passed with the ring full.
    Timeout(V),
    /// Something else went wrong.
    Failed(V, Box<Error>),
}

impl<V> SendError<V> {
    /// The message, whatever the reason.
    pub fn into_inner(self) -> V {
        match self {
            SendError::Full(v)
            | SendError::Closed(v)
            | SendError::Timeout(v)
            | SendError::Failed(v, _) => v,
        }
    }

    /// What went wrong, if it is [`SendError::Failed`].
    pub fn failure(&self) -> Option<&Error> {
        match self {
            SendError::Failed(_, error) => Some(error),
            _ => None,
        }
    }

    /// The same reason with another payload.
    pub(crate) fn map<U>(self, f: impl FnOnce(V) -> U) -> SendError<U> {
        match self {
            SendError::Full(v) => SendError::Full(f(v)),
            SendError::Closed(v) => SendError::Closed(f(v)),
            SendError::Timeout(v) => SendError::Timeout(f(v)),
            SendError::Failed(v, e) => SendError::Failed(f(v), e),
        }
    }
}

impl SendError<()> {
    /// The same reason, with the message. Out of line: where these moves of a
    /// large message are inlined, the compiler takes them apart word by word,
    /// into hundreds of kilobytes of code.
    #[cold]
    #[inline(never)]
    pub(crate) fn with<V: Copy>(self, message: &V) -> SendError<V> {
        self.map(|()| *message)
    }
}

// Whatever the message is, so that `?` works for every type.
impl<V> fmt::Debug for SendError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("Full(..)"),
            SendError::Closed(_) => f.write_str("Closed(..)"),
            SendError::Timeout(_) => f.write_str("Timeout(..)"),
            SendError::Failed(_, e) => f.debug_tuple("Failed").field(e).finish(),
        }
    }
}

impl<V> fmt::Display for SendError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("the ring is full"),
            SendError::Closed(_) => f.write_str("closed: nobody will receive"),
            SendError::Timeout(_) => f.write_str("timed out with the ring full"),
            SendError::Failed(_, e) => e.fmt(f),
        }
    }
}

impl<V> std::error::Error for SendError<V> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.failure()?)
    }
}

impl From<Error> for SendError<()> {
    fn from(e: Error) -> Self {
        SendError::Failed((), e.into())
    }
}

/// Why no message was received.
#[derive(Debug)]
pub enum RecvError {
    /// Nothing to receive now (only from the forms that do not wait).
    Empty,
    /// Nothing to receive, and every sender is gone or the queue was closed.
    Closed,
    /// The other end of the pipe was killed; everything that it published has
    /// been received.
    PeerDied {
        /// The process, as it named itself.
        pid: u32,
    },
    /// The deadline passed with nothing to receive.
    Timeout,
    /// Something else went wrong.
    Failed(Box<Error>),
}

impl RecvError {
    /// What went wrong, if it is [`RecvError::Failed`].
    pub fn failure(&self) -> Option<&Error> {
        match self {
            RecvError::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Empty => f.write_str("nothing to receive"),
            RecvError::Closed => f.write_str("closed: nobody will send"),
            RecvError::PeerDied { pid } => write!(f, "the other end, process {pid}, was killed"),
            RecvError::Timeout => f.write_str("timed out with nothing to receive"),
            RecvError::Failed(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for RecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.failure()?)
    }
}

impl From<Error> for RecvError {
    fn from(e: Error) -> Self {
        RecvError::Failed(e.into())
    }
}

/// Why a lock was not taken in the ordinary way.
pub enum LockError<G> {
    /// The last owner died holding it. The caller holds it now: the guard is
    /// inside. What it protects may be half-changed.
    Poisoned(G),
    /// Somebody holds it (only from `try_lock`).
    WouldBlock,
    /// The deadline passed.
    Timeout,
    /// Something else went wrong.
    Failed(Box<Error>),
}

impl<G> LockError<G> {
    /// What went wrong, if it is [`LockError::Failed`].
    pub fn failure(&self) -> Option<&Error> {
        match self {
            LockError::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl<G> From<Error> for LockError<G> {
    fn from(e: Error) -> Self {
        LockError::Failed(e.into())
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(_) => f.write_str("Poisoned(..)"),
            LockError::WouldBlock => f.write_str("WouldBlock"),
            LockError::Timeout => f.write_str("Timeout"),
            LockError::Failed(e) => f.debug_tuple("Failed").field(e).finish(),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(_) => f.write_str("the last owner died holding the lock"),
            LockError::WouldBlock => f.write_str("the lock is held"),
            LockError::Timeout => f.write_str("timed out waiting for the lock"),
            LockError::Failed(e) => e.fmt(f),
        }
    }
}

/// Gives the guard up: a poisoned lock becomes [`Error::Poisoned`]. So `?` works
/// where poison is an error like any other.
impl<G> From<LockError<G>> for Error {
    fn from(error: LockError<G>) -> Self {
        match error {
            LockError::Poisoned(_) => Error::Poisoned,
            LockError::WouldBlock => Error::Busy { what: "the lock", pid: 0 },
            LockError::Timeout => Error::Timeout,
            LockError::Failed(error) => *error,
        }
    }
}

// Guards borrow, so a `LockError` can't itself be boxed as an error; what it
// says can.
impl<G> From<LockError<G>> for Box<dyn std::error::Error> {
    fn from(error: LockError<G>) -> Self {
        Error::from(error).into()
    }
}

impl<G> From<LockError<G>> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: LockError<G>) -> Self {
        Error::from(error).into()
    }
}
