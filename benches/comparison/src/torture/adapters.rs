//! The queues that are tortured from this program: how each is made, and what a
//! victim does with it. (Those of other languages are in `../../boost` and
//! `../../python`.)

use super::ledger::{Message, WORDS};
use crate::Result;
use cloudtoid_interprocess as cloudtoid;
use slipring::{Delivery, Queue, QueueOptions, RecvError, SendError};
use std::any::Any;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::time::Duration;

/// How long a call waits before the victim looks whether it shall end.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Messages that a queue holds.
pub const SLOTS: usize = 1024;

/// A producer's end.
pub trait Sender {
    /// Sends within about [`PATIENCE`]; whether there was room.
    fn send(&mut self, message: &Message) -> Result<bool>;
}

/// A consumer's end.
pub trait Receiver {
    /// Receives within about [`PATIENCE`], and notes what came: while it still
    /// holds the message, if the queue lends it.
    fn receive(&mut self, note: &mut dyn FnMut(&Message)) -> Result<()>;
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Queued {
    Slipring,
    SlipringAtLeastOnce,
    Shaq,
    Cloudtoid,
    Pipe,
}

/// Tries until it succeeds or the patience is over: first at once, then giving
/// the processor away, then with naps, as a caller would who has nothing else.
fn patiently(mut attempt: impl FnMut() -> Result<bool>) -> Result<bool> {
    const NAP: Duration = Duration::from_micros(200);
    for _ in 0..64 {
        if attempt()? {
            return Ok(true);
        }
        std::thread::yield_now();
    }
    for _ in 0..PATIENCE.as_micros() / NAP.as_micros() {
        if attempt()? {
            return Ok(true);
        }
        std::thread::sleep(NAP);
    }
    Ok(false)
}

/// In the observer: makes the queue under this name. What it returns keeps it.
pub fn make(queue: Queued, name: &str) -> Result<Box<dyn Any>> {
    Ok(match queue {
        Queued::Slipring => Box::new(Queue::<Message>::create(name, SLOTS)?),
        Queued::SlipringAtLeastOnce => {
            let options = QueueOptions::new(SLOTS).delivery(Delivery::AtLeastOnce);
            Box::new(Queue::<Message>::create(name, options)?)
        }
        Queued::Shaq => {
            let size = shaq::mpmc::minimum_file_size::<Message>(SLOTS).next_multiple_of(4096);
            let path = shared(name);
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            file.set_len(size as u64)?;
            // SAFETY: a new file, initialised here only.
            let made = unsafe { shaq::mpmc::Producer::<Message>::create(&file, size) };
            Box::new(made.map_err(|error| format!("{error:?}"))?)
        }
        Queued::Cloudtoid => {
            std::fs::create_dir(shared(name))?;
            // The queue lives while it has an endpoint.
            Box::new(cloudtoid::Subscriber::open(&cloudtoid_options(name))?)
        }
        Queued::Pipe => Box::new(crate::os::pipe()?),
    })
}

fn shared(name: &str) -> std::path::PathBuf {
    Path::new("/dev/shm").join(name)
}

fn cloudtoid_options(name: &str) -> cloudtoid::Options {
    cloudtoid::Options::new(name, SLOTS * (8 * WORDS + 8)).with_path(shared(name))
}

/// Removes what a queue may have left under its name.
pub fn sweep(queue: Queued, name: &str) {
    match queue {
        Queued::Cloudtoid => {
            let _ = std::fs::remove_dir_all(shared(name));
            // Its named semaphore.
            let _ = std::fs::remove_file(shared(&format!("sem.ct3ip.{name}")));
        }
        _ => {
            let _ = std::fs::remove_file(shared(name));
        }
    }
}

/// In a producer: its end.
pub fn sender(queue: Queued, name: &str) -> Result<Box<dyn Sender>> {
    Ok(match queue {
        Queued::Slipring | Queued::SlipringAtLeastOnce => {
            Box::new(Queue::<Message>::open(name)?.sender()?)
        }
        Queued::Shaq => {
            let file = File::options().read(true).write(true).open(shared(name))?;
            // SAFETY: the observer made it, of the same type.
            let producer = unsafe { shaq::mpmc::Producer::<Message>::join(&file) };
            Box::new(producer.map_err(|error| format!("{error:?}"))?)
        }
        Queued::Cloudtoid => Box::new(cloudtoid::Publisher::open(&cloudtoid_options(name))?),
        // SAFETY: a producer's standard output is the pipe, and nobody else in
        // it uses that.
        Queued::Pipe => Box::new(unsafe { File::from_raw_fd(1) }),
    })
}

/// In a consumer: its end.
pub fn receiver(queue: Queued, name: &str) -> Result<Box<dyn Receiver>> {
    Ok(match queue {
        Queued::Slipring => Box::new(Copying(Queue::open(name)?.receiver()?)),
        Queued::SlipringAtLeastOnce => Box::new(Lending(Queue::open(name)?.receiver()?)),
        Queued::Shaq => {
            let file = File::options().read(true).write(true).open(shared(name))?;
            // SAFETY: the observer made it, of the same type.
            let consumer = unsafe { shaq::mpmc::Consumer::<Message>::join(&file) };
            Box::new(consumer.map_err(|error| format!("{error:?}"))?)
        }
        Queued::Cloudtoid => Box::new(cloudtoid::Subscriber::open(&cloudtoid_options(name))?),
        // SAFETY: a consumer's standard input is the pipe, and nobody else in it
        // uses that.
        Queued::Pipe => Box::new(unsafe { File::from_raw_fd(0) }),
    })
}

impl Sender for slipring::Sender<Message> {
    fn send(&mut self, message: &Message) -> Result<bool> {
        match self.send_timeout(*message, PATIENCE) {
            Ok(()) => Ok(true),
            Err(SendError::Timeout(_)) => Ok(false),
            Err(error) => Err(format!("{error}").into()),
        }
    }
}

/// Receives copies: what it was given and had not noted is lost with it.
struct Copying(slipring::Receiver<Message>);

impl Receiver for Copying {
    fn receive(&mut self, note: &mut dyn FnMut(&Message)) -> Result<()> {
        match self.0.recv_timeout(PATIENCE) {
            Ok(message) => note(&message),
            // No sender lives at the moment.
            Err(RecvError::Closed) => std::thread::sleep(Duration::from_millis(1)),
            Err(RecvError::Timeout) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Notes what it holds: that comes again if it dies meanwhile.
struct Lending(slipring::Receiver<Message>);

impl Receiver for Lending {
    fn receive(&mut self, note: &mut dyn FnMut(&Message)) -> Result<()> {
        match self.0.take_timeout(PATIENCE) {
            Ok(message) => note(&message),
            Err(RecvError::Closed) => std::thread::sleep(Duration::from_millis(1)),
            Err(RecvError::Timeout) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Sender for shaq::mpmc::Producer<Message> {
    fn send(&mut self, message: &Message) -> Result<bool> {
        patiently(|| Ok(self.try_write(*message).is_ok()))
    }
}

impl Receiver for shaq::mpmc::Consumer<Message> {
    fn receive(&mut self, note: &mut dyn FnMut(&Message)) -> Result<()> {
        if let Ok(message) = self.read_timeout(PATIENCE) {
            note(&message);
        }
        Ok(())
    }
}

impl Sender for cloudtoid::Publisher {
    fn send(&mut self, message: &Message) -> Result<bool> {
        patiently(|| match self.try_send(bytemuck::bytes_of(message)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_full() => Ok(false),
            Err(error) => Err(error.into()),
        })
    }
}

impl Receiver for cloudtoid::Subscriber {
    fn receive(&mut self, note: &mut dyn FnMut(&Message)) -> Result<()> {
        if let Some(bytes) = self.recv_timeout(PATIENCE)? {
            note(&whole(&bytes));
        }
        Ok(())
    }
}

/// A message from bytes; one of another length is torn, like all zeroes.
fn whole(bytes: &[u8]) -> Message {
    bytemuck::try_pod_read_unaligned(bytes).unwrap_or([u64::MAX; WORDS])
}

impl Sender for File {
    fn send(&mut self, message: &Message) -> Result<bool> {
        // Shorter than PIPE_BUF: all of it or nothing, and it waits for room.
        let written = self.write(bytemuck::bytes_of(message))?;
        if written == size_of::<Message>() { Ok(true) } else { Err("a short write".into()) }
    }
}

impl Receiver for File {
    fn receive(&mut self, note: &mut dyn FnMut(&Message)) -> Result<()> {
        let mut bytes = [0; size_of::<Message>()];
        match self.read(&mut bytes)? {
            0 => {}
            read => note(&whole(&bytes[..read])),
        }
        Ok(())
    }
}
