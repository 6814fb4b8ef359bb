//! What the kernel offers: a pipe, and a pair of Unix sockets.

use crate::Result;
use crate::os;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check, fill,
    fill_batch,
};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const KINDS: &[Kind] =
    &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Batch, Kind::Many];

pub struct Pipe;
pub struct UnixSocket;

/// The writing and the reading end.
pub struct Ends {
    write: OwnedFd,
    read: OwnedFd,
}

pub struct FdTx<const W: usize>(File, Vec<[u64; W]>);

/// The last `filled` bytes of an incomplete batch come first in the next.
pub struct FdRx<const W: usize> {
    file: File,
    batch: Vec<[u64; W]>,
    filled: usize,
}

impl System for Pipe {
    const ABOUT: About = About {
        name: "pipe",
        origin: Origin::Kernel,
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: KINDS,
        streams_block: true,
        most: (usize::MAX, usize::MAX),
        note: "write and read of one message (batches: of 64); O_NONBLOCK where both sides poll; \
               a buffer of as many messages as the others hold, at least 64 KiB",
    };
    type Channel<const W: usize> = PipeChannel;
}

pub struct PipeChannel(Ends);

impl<const W: usize> Channel<W> for PipeChannel {
    type Tx = FdTx<W>;
    type Rx = FdRx<W>;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        let (read, write) = os::pipe()?;
        let bytes = (8 * W * shape.capacity).clamp(1 << 16, 1 << 20) as libc::c_int;
        // SAFETY: takes numbers. Where the limit is lower, the buffer stays.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
        os::set_nonblocking(&read, !shape.blocking)?;
        os::set_nonblocking(&write, !shape.blocking)?;
        Ok(PipeChannel(Ends { write, read }))
    }

    fn tx(&self) -> Result<FdTx<W>> {
        self.0.tx()
    }

    fn rx(&self) -> Result<FdRx<W>> {
        self.0.rx()
    }
}

impl System for UnixSocket {
    const ABOUT: About = About {
        name: "Unix socket",
        origin: Origin::Kernel,
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: KINDS,
        streams_block: true,
        most: (usize::MAX, usize::MAX),
        note: "a socketpair, SOCK_STREAM (SOCK_SEQPACKET among many); otherwise as the pipe, with \
               the system's default buffer",
    };
    type Channel<const W: usize> = SocketChannel;
}

pub struct SocketChannel(Ends);

impl<const W: usize> Channel<W> for SocketChannel {
    type Tx = FdTx<W>;
    type Rx = FdRx<W>;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        // Several readers of a stream would tear its messages apart.
        let many = shape.producers + shape.consumers > 2;
        let kind = if many { libc::SOCK_SEQPACKET } else { libc::SOCK_STREAM };
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        os::check(unsafe {
            libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
        })?;
        // SAFETY: two new descriptors that nobody else owns.
        let [write, read] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        os::set_nonblocking(&read, !shape.blocking)?;
        os::set_nonblocking(&write, !shape.blocking)?;
        Ok(SocketChannel(Ends { write, read }))
    }

    fn tx(&self) -> Result<FdTx<W>> {
        self.0.tx()
    }

    fn rx(&self) -> Result<FdRx<W>> {
        self.0.rx()
    }
}

impl Ends {
    fn tx<const W: usize>(&self) -> Result<FdTx<W>> {
        Ok(FdTx(self.write.try_clone()?.into(), Vec::with_capacity(BATCH)))
    }

    fn rx<const W: usize>(&self) -> Result<FdRx<W>> {
        Ok(FdRx { file: self.read.try_clone()?.into(), batch: vec![[0; W]; BATCH], filled: 0 })
    }
}

/// Whether a call would have had to wait; panics unless it did or was
/// interrupted.
fn would_wait(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::WouldBlock => true,
        ErrorKind::Interrupted => false,
        other => panic!("{other}"),
    }
}

/// Writes all, unless not even the first byte finds room.
fn write(file: &mut File, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if would_wait(error.kind()) && rest.len() == bytes.len() => return false,
            Err(_) => {}
        }
    }
    true
}

impl<const W: usize> Tx<W> for FdTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        self.1.resize(1, [0; W]);
        fill(&mut self.1[0], head);
        write(&mut self.0, bytemuck::bytes_of(&self.1[0]))
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        assert!(self.try_send(head), "would block");
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        fill_batch(&mut self.1, heads);
        let sent = write(&mut self.0, bytemuck::cast_slice(&self.1));
        assert!(sent, "would block");
    }
}

impl<const W: usize> Rx<W> for FdRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        let bytes = bytemuck::bytes_of_mut(&mut self.batch[0]);
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read(&mut bytes[filled..]) {
                Ok(0) => panic!("the other side is gone"),
                Ok(read) => filled += read,
                Err(error) if would_wait(error.kind()) && filled == 0 => return None,
                Err(_) => {}
            }
        }
        Some(check(&self.batch[0]))
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        self.try_recv().expect("would block")
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.batch);
        match self.file.read(&mut bytes[self.filled..]) {
            Ok(0) => panic!("the other side is gone"),
            Ok(read) => self.filled += read,
            Err(error) => assert!(!would_wait(error.kind()), "would block"),
        }
        let whole = self.filled / (8 * W);
        self.batch[..whole].iter().for_each(|message| each(check(message)));
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.batch);
        bytes.copy_within(whole * 8 * W..self.filled, 0);
        self.filled -= whole * 8 * W;
    }
}
