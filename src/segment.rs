//! Segments: objects declared up front, created, opened, listed and recovered.

use crate::array::Array;
use crate::error::{Error, Result, Shape};
use crate::kinds::{self, Declared};
use crate::lock::Lock;
use crate::os::{self, points::point};
use crate::pipe::{self, End, Pipe, PipeOptions};
use crate::queue::{self, Queue, QueueOptions};
use crate::shm::attachment::{Attachment, Manner, ParticipantInfo, Unlink};
use crate::shm::catalog::Object;
use crate::shm::file::{self, File, Plan};
use crate::shm::layout::MAX_PARTICIPANTS;
use crate::value::Value;
use crate::{array, lock, value};
use bytemuck::Pod;
use std::fmt;
use std::sync::Arc;

/// How processes of a segment sleep and wake each other. Chosen by the creator;
/// all must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum WaitMode {
    /// Shared futexes; who goes to sleep runs `membarrier`, so that who sends
    /// needs no fence. The default where the kernel has it (Linux 4.16).
    Membarrier = 1,
    /// Shared futexes and a full fence on both sides.
    Fence = 2,
    /// `raw_sync` events, selected by the feature `portable-wait`. Sleepers look
    /// at them again and again, so a wake-up comes up to a millisecond late, and
    /// who waits in vain still takes a little of the processor.
    Portable = 3,
}

impl WaitMode {
    fn from_raw(raw: u32) -> Option<WaitMode> {
        [WaitMode::Membarrier, WaitMode::Fence, WaitMode::Portable]
            .into_iter()
            .find(|mode| *mode as u32 == raw)
    }

    fn name(self) -> &'static str {
        match self {
            WaitMode::Membarrier => "futexes with membarrier",
            WaitMode::Fence => "futexes with fences",
            WaitMode::Portable => "raw_sync events",
        }
    }

    /// The best that this build and kernel can do.
    fn best() -> WaitMode {
        if cfg!(feature = "portable-wait") {
            WaitMode::Portable
        } else if os::membarrier_register() {
            WaitMode::Membarrier
        } else {
            WaitMode::Fence
        }
    }

    /// Whether this build and kernel can do it.
    fn check(self) -> Result<()> {
        let able = match self {
            WaitMode::Portable => cfg!(feature = "portable-wait"),
            WaitMode::Fence => !cfg!(feature = "portable-wait"),
            WaitMode::Membarrier => !cfg!(feature = "portable-wait") && os::membarrier_register(),
        };
        if able {
            return Ok(());
        }
        Err(Error::WaitMode { found: self.name(), expected: WaitMode::best().name() })
    }
}

/// What to do with a segment that no living process holds: all of its users
/// were killed, or it was made to persist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stale {
    /// Recover what the dead held, and go on with the messages and values that
    /// are in it. The default.
    #[default]
    Recover,
    /// Remove it; [`Builder::open_or_create`] then makes a new one, opening
    /// fails with [`Error::NotFound`].
    Recreate,
    /// Fail with [`Error::Stale`].
    Refuse,
}

/// A named stretch of shared memory with objects in it.
///
/// Cloning gives another handle of the same attachment. Objects taken from it
/// keep it attached.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use slipring::Segment;
///
/// # let name = format!("doc-segment-{}", std::process::id());
/// let robot = Segment::builder(&name)
///     .queue::<u64>("commands", 256)
///     .pipe("control", 64 * 1024)
///     .value_with::<f64>("battery", 12.6)
///     .array::<f32>("lidar", 4096)
///     .create()?;
/// let battery = robot.value::<f64>("battery")?;
///
/// // Elsewhere:
/// let robot = Segment::open(&name)?;
/// assert_eq!(robot.value::<f64>("battery")?.load(), 12.6);
/// # drop(battery);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Segment {
    attachment: Arc<Attachment>,
}

/// An object of a segment, as its catalog lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Its kind and the type of its elements.
    pub shape: Shape,
    /// Slots of a queue or a typed pipe, elements of an array, bytes of a pipe;
    /// 1 for values and locks.
    pub capacity: usize,
    /// Bytes from the start of the segment.
    pub offset: usize,
    /// Bytes that it takes.
    pub len: usize,
}

impl Segment {
    /// Starts the declaration of a segment.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            declared: Vec::new(),
            participants: 64,
            unlink: Unlink::default(),
            stale: Stale::default(),
            group: false,
            wait_mode: None,
            label: None,
            prefault: false,
        }
    }

    /// Opens an existing segment: attaches to it, after checking all of its
    /// header and catalog. A segment whose users were all killed is recovered.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::PermissionDenied`],
    /// [`Error::NotASegment`], [`Error::LayoutVersion`], [`Error::Truncated`],
    /// [`Error::Corrupt`], [`Error::ParticipantsFull`], [`Error::WaitMode`],
    /// [`Error::Busy`] when the last user has been in the midst of removing it
    /// for long, [`Error::Os`].
    pub fn open(name: &str) -> Result<Segment> {
        OpenOptions::new().open(name)
    }

    /// Removes the name of a segment. Processes that are attached go on; new
    /// ones don't find it. Works on segments that are damaged or in use.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotASegment`],
    /// [`Error::PermissionDenied`], [`Error::Busy`] when another process has
    /// been in the midst of removing it for long, [`Error::Os`].
    pub fn unlink(name: &str) -> Result<()> {
        file::unlink(name)
    }

    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// The name it was created or opened by.
    pub fn name(&self) -> &str {
        self.attachment.name()
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.attachment.len()
    }

    /// Never: a segment has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// When its name is removed.
    pub fn unlink_policy(&self) -> Unlink {
        self.attachment.unlink_policy()
    }

    /// The objects in it.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        let info = |object: &Object| ObjectInfo {
            name: object.name.clone(),
            shape: object.shape(),
            capacity: object.capacity,
            offset: object.offset,
            len: object.len,
        };
        self.attachment.objects().iter().map(info).collect()
    }

    /// A queue of `T`.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectUnknown`], [`Error::TypeMismatch`].
    pub fn queue<T: Pod>(&self, name: &str) -> Result<Queue<T>> {
        Queue::within(self, name)
    }

    /// A queue of byte messages.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectUnknown`], [`Error::TypeMismatch`].
    pub fn bytes_queue(&self, name: &str) -> Result<Queue<[u8]>> {
        Queue::within_bytes(self, name)
    }

    /// An end of a byte pipe: [`End::A`] for the process that created the
    /// segment, [`End::B`] for others.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectUnknown`], [`Error::TypeMismatch`], [`Error::Busy`] if
    /// the end is held by a living process.
    pub fn pipe(&self, name: &str) -> Result<Pipe<[u8]>> {
        self.pipe_end(name, self.own_end())
    }

    /// This end of a byte pipe.
    ///
    /// # Errors
    ///
    /// As [`Segment::pipe`].
    pub fn pipe_end(&self, name: &str, end: End) -> Result<Pipe<[u8]>> {
        Pipe::within_bytes(self, name, end)
    }

    /// An end of a pipe of `T`, chosen as by [`Segment::pipe`].
    ///
    /// # Errors
    ///
    /// As [`Segment::pipe`].
    pub fn typed_pipe<T: Pod>(&self, name: &str) -> Result<Pipe<T>> {
        self.typed_pipe_end(name, self.own_end())
    }

    /// This end of a pipe of `T`.
    ///
    /// # Errors
    ///
    /// As [`Segment::pipe`].
    pub fn typed_pipe_end<T: Pod>(&self, name: &str, end: End) -> Result<Pipe<T>> {
        Pipe::within(self, name, end)
    }

    fn own_end(&self) -> End {
        if self.attachment.created() { End::A } else { End::B }
    }

    /// A value of type `T`.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectUnknown`], [`Error::TypeMismatch`].
    pub fn value<T: Pod>(&self, name: &str) -> Result<Value<T>> {
        Value::within(self, name)
    }

    /// An array of `T`: one handle at a time in each attachment.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectUnknown`], [`Error::TypeMismatch`], [`Error::Busy`] while
    /// another handle of this attachment is alive.
    pub fn array<T: Pod>(&self, name: &str) -> Result<Array<T>> {
        Array::within(self, name)
    }

    /// A lock.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectUnknown`], [`Error::TypeMismatch`].
    pub fn lock(&self, name: &str) -> Result<Lock> {
        Lock::within(self, name)
    }

    /// Who is attached, dead ones that nobody has recovered yet included.
    ///
    /// # Errors
    ///
    /// [`Error::Os`]; [`Error::ParticipantsFull`] in a forked child.
    pub fn participants(&self) -> Result<Vec<ParticipantInfo>> {
        let mut list = self.attachment.participants()?;
        for participant in &mut list {
            let Some(owner) = crate::ring::Owner::new(participant.id) else { continue };
            for object in self.attachment.objects() {
                let roles = kinds::roles(&self.attachment, object, owner);
                participant.roles.extend(roles.iter().map(|r| format!("{}: {r}", object.name)));
            }
        }
        Ok(list)
    }

    /// Most processes that can be attached at a time.
    pub fn max_participants(&self) -> usize {
        self.attachment.max_participants()
    }

    /// Recovers all dead participants now; returns how many there were. Nobody
    /// needs to call this: waiting, attaching and polling do it. It is for
    /// tools, and for those who want it done before they go on.
    ///
    /// # Errors
    ///
    /// [`Error::Os`]; [`Error::ParticipantsFull`] in a forked child.
    pub fn recover(&self) -> Result<usize> {
        self.attachment.recover_dead(usize::MAX)
    }

    /// The handle of the only object, as `within` makes it.
    pub(crate) fn only<H>(&self, within: impl Fn(&Segment, &str) -> Result<H>) -> Result<H> {
        within(self, &self.attachment.only_object()?.name)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// How to open a segment.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    stale: Stale,
    label: Option<String>,
    group: bool,
    prefault: bool,
}

impl OpenOptions {
    /// The defaults: recover a stale segment, be labelled by the command's name.
    pub fn new() -> Self {
        Self::default()
    }

    /// What to do with a segment that no living process holds.
    pub fn stale(mut self, stale: Stale) -> Self {
        self.stale = stale;
        self
    }

    /// How this process appears in [`Segment::participants`] (cut to 64 bytes).
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    /// Trusts the segment of another user whose group may use it (see
    /// [`Builder::group_access`]). By default only one's own are opened: whoever
    /// can write to a segment can read its messages, and make its users fault.
    pub fn group_access(mut self, trusted: bool) -> Self {
        self.group = trusted;
        self
    }

    /// Maps every page now rather than at its first touch, so that the first lap
    /// of a ring has no page faults (more than a microsecond each). Takes some
    /// 0.3 ms per MiB, and Linux 5.14; without that it does nothing.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Opens the segment.
    ///
    /// # Errors
    ///
    /// As [`Segment::open`], and [`Error::Stale`].
    pub fn open(&self, name: &str) -> Result<Segment> {
        // A segment that is on its way out is looked for again.
        for _ in 0..1000 {
            let file = file::open(name, self.group)?;
            let held = file.is_held()?;
            match self.stale {
                _ if held => {}
                Stale::Recover => {}
                Stale::Refuse => return Err(Error::Stale { name: name.to_owned() }),
                // Unless somebody comes meanwhile.
                Stale::Recreate => {
                    file.retire();
                    continue;
                }
            }
            if let Some(attachment) = attach(file, false, self.label.clone())? {
                if !held {
                    // What the system does not let it do now is done by
                    // whoever waits. To give up here would remove the segment:
                    // this is its last user.
                    let _ = attachment.recover_dead(usize::MAX);
                }
                if self.prefault {
                    attachment.prefault();
                }
                return Ok(Segment { attachment: Arc::new(attachment) });
            }
        }
        Err(Error::os("open", rustix::io::Errno::AGAIN))
    }
}

fn attach(file: File, created: bool, label: Option<String>) -> Result<Option<Attachment>> {
    let Some(mode) = WaitMode::from_raw(file.fixed.wait_mode) else {
        return Err(Error::Corrupt { what: "wait mode in the header, byte", at: 40 });
    };
    mode.check()?;
    kinds::check(&file.objects, file.fixed.participants as usize)?;
    let asymmetric = mode == WaitMode::Membarrier;
    let (sweep, settle) = (kinds::sweep, kinds::settle);
    Attachment::join(file, Manner { sweep, settle, asymmetric, created, label })
}

/// Declares a segment: its objects first, then [`create`](Builder::create) or
/// [`open_or_create`](Builder::open_or_create).
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `create` or `open_or_create`"]
pub struct Builder {
    name: String,
    declared: Vec<Declared>,
    participants: usize,
    unlink: Unlink,
    stale: Stale,
    group: bool,
    wait_mode: Option<WaitMode>,
    label: Option<String>,
    prefault: bool,
}

impl Builder {
    fn declare(mut self, object: Object, initial: Vec<u8>) -> Self {
        self.declared.push(Declared { object, initial });
        self
    }

    /// A queue of `T` with exactly this many slots, or as [`QueueOptions`] say.
    pub fn queue<T: Pod>(self, name: &str, slots: impl Into<QueueOptions>) -> Self {
        self.declare(queue::declare::<T>(name, slots.into()), Vec::new())
    }

    /// A queue of byte messages of up to `max_len` bytes each.
    pub fn bytes_queue(self, name: &str, slots: impl Into<QueueOptions>, max_len: usize) -> Self {
        self.declare(queue::declare_bytes(name, slots.into(), max_len), Vec::new())
    }

    /// A duplex byte pipe with a ring of `bytes` each way, or as
    /// [`PipeOptions`] say.
    pub fn pipe(self, name: &str, bytes: impl Into<PipeOptions>) -> Self {
        self.declare(pipe::declare_bytes(name, bytes.into()), Vec::new())
    }

    /// A duplex pipe of `T` with this many slots each way, or as
    /// [`PipeOptions`] say.
    pub fn typed_pipe<T: Pod>(self, name: &str, slots: impl Into<PipeOptions>) -> Self {
        self.declare(pipe::declare::<T>(name, slots.into()), Vec::new())
    }

    /// A value of type `T`, all zero at first.
    pub fn value<T: Pod>(self, name: &str) -> Self {
        self.value_with(name, T::zeroed())
    }

    /// A value of type `T` that starts as `initial`.
    pub fn value_with<T: Pod>(self, name: &str, initial: T) -> Self {
        self.declare(value::declare::<T>(name), bytemuck::bytes_of(&initial).to_vec())
    }

    /// An array of `len` elements of type `T`, all zero.
    pub fn array<T: Pod>(self, name: &str, len: usize) -> Self {
        self.declare(array::declare::<T>(name, len), Vec::new())
    }

    /// A lock.
    pub fn lock(self, name: &str) -> Self {
        self.declare(lock::declare(name), Vec::new())
    }

    /// Most processes attached at a time: 64 by default, at most 4095. Each
    /// takes 128 bytes, and 8 in every queue.
    pub fn participants(mut self, max: usize) -> Self {
        self.participants = max;
        self
    }

    /// When the segment's name is removed.
    pub fn unlink(mut self, policy: Unlink) -> Self {
        self.unlink = policy;
        self
    }

    /// What [`open_or_create`](Builder::open_or_create) does with a segment
    /// that no living process holds.
    pub fn stale(mut self, stale: Stale) -> Self {
        self.stale = stale;
        self
    }

    /// Lets the group of the creator's process use the segment too (mode 0660
    /// instead of 0600), and trusts an existing one of the group's that
    /// [`open_or_create`](Builder::open_or_create) finds.
    pub fn group_access(mut self, allowed: bool) -> Self {
        self.group = allowed;
        self
    }

    /// How its processes sleep, instead of the best that this system has.
    pub fn wait_mode(mut self, mode: WaitMode) -> Self {
        self.wait_mode = Some(mode);
        self
    }

    /// How this process appears in [`Segment::participants`] (cut to 64 bytes).
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    /// Maps every page now rather than at its first touch, so that the first lap
    /// of a ring has no page faults (more than a microsecond each). Takes some
    /// 0.3 ms per MiB, and Linux 5.14; without that it does nothing.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Creates the segment. It appears under its name complete, or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`], [`Error::NameInvalid`],
    /// [`Error::Declaration`], [`Error::NoSpace`], [`Error::Os`]. Nothing is
    /// left behind; what the system does not let this call remove is removed by
    /// the next creation.
    pub fn create(&self) -> Result<Segment> {
        let mode = self.wait_mode.unwrap_or_else(WaitMode::best);
        mode.check()?;
        let refuse = |object: &str, why| Err(Error::Declaration { object: object.to_owned(), why });
        if self.participants == 0 || self.participants > MAX_PARTICIPANTS {
            return refuse("", "participants must be from 1 to 4095");
        }
        let mut declared = self.declared.clone();
        if declared.is_empty() {
            return refuse("", "a segment needs at least one object");
        }
        for Declared { object, .. } in &mut declared {
            match kinds::measure(object, self.participants) {
                Ok(len) => object.len = len,
                Err(why) => return refuse(&object.name, why),
            }
        }
        let init = |file: &File| {
            let region = file.map.region(file.fixed.len as usize)?;
            for (placed, declared) in file.objects.iter().zip(&declared) {
                let Some(part) = region.part(placed.offset, placed.len) else {
                    return Err(Error::Corrupt { what: "new object at", at: placed.offset as u64 });
                };
                // SAFETY: the part has the object's measure, at an offset that
                // is a multiple of a line; the file is new (zeroed) and not yet
                // published.
                unsafe { kinds::init(declared, part, self.participants) };
                point("create.object");
            }
            Ok(())
        };
        let plan = Plan {
            objects: declared.iter().map(|declared| declared.object.clone()).collect(),
            participants: self.participants,
            wait_mode: mode as u32,
            unlink: self.unlink as u32,
            mode: if self.group { 0o660 } else { 0o600 },
            init: &init,
        };
        let attachment = file::create(&self.name, &plan, |file| {
            attach(file, true, self.label.clone())?
                .ok_or_else(|| Error::os("open", rustix::io::Errno::AGAIN))
        })?;
        if self.prefault {
            attachment.prefault();
        }
        Ok(Segment { attachment: Arc::new(attachment) })
    }

    /// Opens the segment, or creates it if there is none. An existing one must
    /// have all of the objects declared here, of the same kinds and types;
    /// their capacities are what they are.
    ///
    /// # Errors
    ///
    /// As [`create`](Builder::create) and [`Segment::open`];
    /// [`Error::ObjectUnknown`] and [`Error::TypeMismatch`] if the existing
    /// segment does not match.
    pub fn open_or_create(&self) -> Result<Segment> {
        let options = OpenOptions {
            stale: self.stale,
            label: self.label.clone(),
            group: self.group,
            prefault: self.prefault,
        };
        for _ in 0..1000 {
            match options.open(&self.name) {
                Ok(segment) => {
                    for Declared { object, .. } in &self.declared {
                        let found = segment.attachment.object(&object.name)?;
                        found.expect(object.kind, object.tag)?;
                    }
                    return Ok(segment);
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            match self.create() {
                Err(Error::AlreadyExists { .. }) => {}
                done => return done,
            }
        }
        Err(Error::os("open", rustix::io::Errno::AGAIN))
    }
}
