//! What moves messages: queues and pipes.

use crate::support::BRIEF;
use crate::{Death, Operation, PATIENCE, kill_at_any_instruction};
use slipring::*;
use std::time::Duration;

/// A message that shows when it is torn: every word follows from the first.
type Wide = [u64; 8];

fn wide(key: u64) -> Wide {
    core::array::from_fn(|i| key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(8 * i as u32))
}

/// The key of a message that is whole.
fn key_of(message: &Wide) -> u64 {
    // The factor is odd, so it has an inverse modulo 2^64.
    let key = message[0].wrapping_mul(0xf1de_83e1_9937_733d);
    assert_eq!(*message, wide(key), "a torn message");
    key
}

const SLOTS: usize = 3;

/// What a message is in these tests.
const WARM: u64 = 1;
const VICTIMS: u64 = 2;
const MARKER: u64 = 3;
/// Those that wait to be received, from here on.
const WAITING: u64 = 10;

/// The queue works for several laps, with all of its slots.
fn laps(tx: &mut Sender<Wide>, rx: &mut Receiver<Wide>) {
    for lap in 0..3 {
        let keys = (0..SLOTS as u64).map(|i| 100 + lap * 10 + i);
        for key in keys.clone() {
            tx.try_send(wide(key)).unwrap();
        }
        assert!(matches!(tx.try_send(wide(0)), Err(SendError::Full(_))));
        for key in keys {
            assert_eq!(key_of(&rx.try_recv().unwrap()), key);
        }
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    }
}

struct Send {
    segment: Segment,
    queue: Queue<Wide>,
    tx: Sender<Wide>,
    rx: Receiver<Wide>,
    in_place: bool,
    /// A receiver has gone to sleep, and must be woken; else there is an
    /// earlier message.
    asleep: bool,
}

pub fn queue_send(name: &str, words: &[&str]) {
    let segment =
        Segment::builder(name).queue::<Wide>("queue", SLOTS).participants(4).create().unwrap();
    let queue = segment.queue::<Wide>("queue").unwrap();
    let (tx, rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let (in_place, asleep) = (words[0] == "in place", words[0] == "to a sleeper");
    kill_at_any_instruction(name, Send { segment, queue, tx, rx, in_place, asleep });
}

impl Operation for Send {
    fn arrange(&mut self) {}

    fn warm_up(&mut self) {
        self.tx.send(wide(WARM)).unwrap();
    }

    fn attend(&mut self) {
        assert_eq!(key_of(&self.rx.recv_timeout(PATIENCE).unwrap()), WARM);
        if self.asleep {
            assert!(matches!(self.rx.recv_timeout(BRIEF), Err(RecvError::Timeout)));
        } else {
            self.tx.try_send(wide(WAITING)).unwrap();
        }
    }

    fn run(&mut self) {
        if self.in_place {
            let mut slot = self.tx.claim().unwrap();
            slot.write(wide(VICTIMS));
            slot.commit();
        } else {
            self.tx.send(wide(VICTIMS)).unwrap();
        }
    }

    fn settle(&mut self, death: &Death) -> bool {
        let before = self.queue.counters();
        self.tx.send_timeout(wide(MARKER), PATIENCE).unwrap();
        let mut keys = Vec::new();
        while keys.last() != Some(&MARKER) {
            keys.push(key_of(&self.rx.recv_timeout(PATIENCE).unwrap()));
        }
        let waiting = if self.asleep { &[][..] } else { &[WAITING] };
        let sent = keys == [waiting, &[VICTIMS, MARKER]].concat();
        assert!(sent || keys == [waiting, &[MARKER]].concat(), "{keys:?}, {death:?}");
        self.segment.recover().unwrap();
        // Whoever had claimed and not committed is accounted for.
        let abandoned = self.queue.counters().abandoned - before.abandoned;
        assert_eq!(abandoned, u64::from(death.changes > 0 && !sent), "{death:?}");
        assert_eq!((self.queue.senders(), self.queue.receivers()), (1, 1));
        laps(&mut self.tx, &mut self.rx);
        sent
    }
}

struct Receive {
    segment: Segment,
    queue: Queue<Wide>,
    tx: Sender<Wide>,
    rx: Receiver<Wide>,
    in_place: bool,
    /// A sender has gone to sleep, and must be woken.
    asleep: bool,
}

pub fn queue_receive(name: &str, words: &[&str]) {
    let delivery = match words[0] {
        "at most once" => Delivery::AtMostOnce,
        _ => Delivery::AtLeastOnce,
    };
    let options = QueueOptions::new(SLOTS).delivery(delivery);
    let segment =
        Segment::builder(name).queue::<Wide>("queue", options).participants(4).create().unwrap();
    let queue = segment.queue::<Wide>("queue").unwrap();
    let (tx, rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let (in_place, asleep) = (words[1] == "in place", words[1] == "to a sleeper");
    kill_at_any_instruction(name, Receive { segment, queue, tx, rx, in_place, asleep });
}

impl Receive {
    /// Receives; the key, and whether somebody died with the message before.
    fn take(&mut self) -> (u64, bool) {
        let message = self.rx.take_timeout(PATIENCE).unwrap();
        (key_of(&message), message.redelivered())
    }
}

impl Operation for Receive {
    fn arrange(&mut self) {
        self.tx.try_send(wide(WARM)).unwrap();
    }

    fn warm_up(&mut self) {
        assert_eq!(key_of(&self.rx.recv().unwrap()), WARM);
    }

    fn attend(&mut self) {
        for key in WAITING..WAITING + SLOTS as u64 {
            self.tx.try_send(wide(key)).unwrap();
        }
        if self.asleep {
            let full = self.tx.send_timeout(wide(0), BRIEF);
            assert!(matches!(full, Err(SendError::Timeout(_))));
        }
    }

    fn run(&mut self) {
        let message =
            if self.in_place { *self.rx.take().unwrap() } else { self.rx.recv().unwrap() };
        std::hint::black_box(message);
    }

    fn settle(&mut self, death: &Death) -> bool {
        let before = self.queue.counters();
        let mut found = Vec::new();
        match self.queue.delivery() {
            // Nobody tells the survivors; waiting has to be enough.
            Delivery::AtMostOnce => {
                found.extend([self.take(), self.take()]);
                self.tx.send_timeout(wide(MARKER), PATIENCE).unwrap();
            }
            // An orphan keeps its slot until it is received.
            Delivery::AtLeastOnce => {
                assert_eq!(self.segment.recover().unwrap(), 1);
                while let Err(SendError::Full(_)) = self.tx.try_send(wide(MARKER)) {
                    found.push(self.take());
                }
            }
        }
        while found.last() != Some(&(MARKER, false)) {
            found.push(self.take());
        }
        self.segment.recover().unwrap();
        let after = self.queue.counters();
        let lost = after.lost - before.lost;
        let redelivered = after.redelivered - before.redelivered;
        // Whatever became of the first, the others came once and in order.
        let others = [(WAITING + 1, false), (WAITING + 2, false), (MARKER, false)];
        let (first, rest) = found.split_at(found.len() - others.len());
        assert_eq!(rest, others, "{death:?}");
        let (fresh, flagged) = ([(WAITING, false)], [(WAITING, true)]);
        let received = match (self.queue.delivery(), death.changes) {
            // It died before it took anything.
            (_, 0) => {
                assert_eq!((first, lost, redelivered), (&fresh[..], 0, 0), "{death:?}");
                false
            }
            (Delivery::AtMostOnce, _) => {
                assert_eq!((first, redelivered), (&[][..], 0), "{death:?}");
                assert!(lost <= 1, "{death:?}");
                lost == 0
            }
            (Delivery::AtLeastOnce, _) => {
                assert!(first.is_empty() || first == flagged, "{first:?} {death:?}");
                assert_eq!((lost, redelivered), (0, first.len() as u64), "{death:?}");
                first.is_empty()
            }
        };
        assert_eq!((self.queue.senders(), self.queue.receivers()), (1, 1));
        laps(&mut self.tx, &mut self.rx);
        received
    }
}

/// What the two kinds of pipe have in common. Messages go by their keys; one
/// that is received is whole, or the call panics.
trait Carrier {
    fn open(segment: &Segment, end: End) -> Self;
    /// `None` at the deadline.
    fn offer(&mut self, key: u64, timeout: Duration) -> Option<()>;
    fn receive(&mut self, timeout: Duration) -> Result<u64, RecvError>;
    /// What the victims do: sends, receives a copy, receives in place.
    fn plain_send(&mut self, key: u64);
    fn plain_receive(&mut self) -> u64;
    fn look(&mut self) -> u64;
}

impl Carrier for Pipe<Wide> {
    fn open(segment: &Segment, end: End) -> Self {
        segment.typed_pipe_end("pipe", end).unwrap()
    }

    fn offer(&mut self, key: u64, timeout: Duration) -> Option<()> {
        match self.send_timeout(wide(key), timeout) {
            Ok(()) => Some(()),
            Err(SendError::Timeout(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self, timeout: Duration) -> Result<u64, RecvError> {
        if self.poll(timeout)? { self.recv().map(|m| key_of(&m)) } else { Err(RecvError::Timeout) }
    }

    fn plain_send(&mut self, key: u64) {
        self.send(wide(key)).unwrap();
    }

    fn plain_receive(&mut self) -> u64 {
        key_of(&self.recv().unwrap())
    }

    fn look(&mut self) -> u64 {
        key_of(&self.peek().unwrap())
    }
}

impl Carrier for Pipe<[u8]> {
    fn open(segment: &Segment, end: End) -> Self {
        segment.pipe_end("pipe", end).unwrap()
    }

    fn offer(&mut self, key: u64, timeout: Duration) -> Option<()> {
        match self.send_timeout(&bytes(key), timeout) {
            Ok(()) => Some(()),
            Err(SendError::Timeout(())) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self, timeout: Duration) -> Result<u64, RecvError> {
        let mut message = [0; 64];
        let len = self.recv_into_timeout(&mut message, timeout)?;
        Ok(key_of_bytes(&message[..len]))
    }

    fn plain_send(&mut self, key: u64) {
        self.send(&bytes(key)).unwrap();
    }

    fn plain_receive(&mut self) -> u64 {
        let mut message = [0; 64];
        let len = self.recv_into(&mut message).unwrap();
        key_of_bytes(&message[..len])
    }

    fn look(&mut self) -> u64 {
        key_of_bytes(&self.peek().unwrap())
    }
}

/// Not a multiple of eight, as a byte message may be.
const LEN: usize = 61;

fn bytes(key: u64) -> [u8; LEN] {
    bytemuck::cast::<Wide, [u8; 64]>(wide(key))[..LEN].try_into().unwrap()
}

fn key_of_bytes(bytes: &[u8]) -> u64 {
    let mut message = [0; 64];
    message[..LEN].copy_from_slice(bytes);
    // The missing three bytes are those that the whole message would have.
    let first: u64 = bytemuck::pod_read_unaligned(&message[..8]);
    let whole = wide(first.wrapping_mul(0xf1de_83e1_9937_733d));
    message[LEN..].copy_from_slice(&bytemuck::bytes_of(&whole)[LEN..]);
    key_of(&bytemuck::cast(message))
}

/// Several laps in both directions.
fn pipe_laps<P: Carrier>(a: &mut P, b: &mut P) {
    for key in 100..100 + 4 * SLOTS as u64 {
        a.offer(key, PATIENCE).unwrap();
        b.offer(key + 1, PATIENCE).unwrap();
        assert_eq!(b.receive(PATIENCE).unwrap(), key);
        assert_eq!(a.receive(PATIENCE).unwrap(), key + 1);
    }
}

/// The victim sits at end B; the survivor at end A, and then at B as well.
struct PipeSend<P> {
    segment: Segment,
    a: P,
    victims: Option<P>,
    asleep: bool,
}

impl<P: Carrier> Operation for PipeSend<P> {
    fn arrange(&mut self) {}

    fn warm_up(&mut self) {
        let mut b = P::open(&self.segment, End::B);
        b.offer(WARM, PATIENCE).unwrap();
        self.victims = Some(b);
    }

    fn attend(&mut self) {
        assert_eq!(self.a.receive(PATIENCE).unwrap(), WARM);
        if self.asleep {
            assert!(matches!(self.a.receive(BRIEF), Err(RecvError::Timeout)));
        }
    }

    fn run(&mut self) {
        self.victims.as_mut().unwrap().plain_send(VICTIMS);
    }

    fn settle(&mut self, death: &Death) -> bool {
        let mut keys = Vec::new();
        let end = loop {
            match self.a.receive(PATIENCE) {
                Ok(key) => keys.push(key),
                Err(end) => break end,
            }
        };
        assert!(matches!(end, RecvError::PeerDied { pid } if pid == death.pid), "{end:?}");
        let sent = keys == [VICTIMS];
        assert!(sent || keys.is_empty(), "{keys:?} {death:?}");
        pipe_laps(&mut self.a, &mut P::open(&self.segment, End::B));
        sent
    }
}

struct PipeReceive<P> {
    segment: Segment,
    a: P,
    victims: Option<P>,
    /// Messages that fill the ring.
    waiting: u64,
    in_place: bool,
}

impl<P: Carrier> Operation for PipeReceive<P> {
    fn arrange(&mut self) {}

    fn warm_up(&mut self) {
        let mut b = P::open(&self.segment, End::B);
        // From the end of the ring to its start, whatever the last victim left.
        assert!(matches!(b.receive(BRIEF), Err(RecvError::Timeout)));
        self.victims = Some(b);
    }

    fn attend(&mut self) {
        // As many as fit; the last one goes to sleep on a full ring.
        self.waiting = 0;
        while self.a.offer(WAITING + self.waiting, BRIEF).is_some() {
            self.waiting += 1;
        }
        assert!(self.waiting >= 2);
    }

    fn run(&mut self) {
        let b = self.victims.as_mut().unwrap();
        let key = if self.in_place { b.look() } else { b.plain_receive() };
        std::hint::black_box(key);
    }

    fn settle(&mut self, death: &Death) -> bool {
        let mut b = P::open(&self.segment, End::B);
        let first = b.receive(PATIENCE).unwrap();
        let received = first == WAITING + 1;
        assert!(received || first == WAITING, "{first} {death:?}");
        assert!(!received || death.changes > 0, "{death:?}");
        for key in first + 1..WAITING + self.waiting {
            assert_eq!(b.receive(PATIENCE).unwrap(), key, "{death:?}");
        }
        self.a.offer(MARKER, PATIENCE).unwrap();
        assert_eq!(b.receive(PATIENCE).unwrap(), MARKER);
        pipe_laps(&mut self.a, &mut b);
        received
    }

    /// The receiver's only store is the one that releases.
    fn is_one_store(&self) -> bool {
        true
    }
}

fn pipe<P: Carrier>(name: &str, segment: Segment, what: &str) {
    let (a, victims) = (P::open(&segment, End::A), None);
    match what {
        "send" | "send to a sleeper" => {
            let asleep = what == "send to a sleeper";
            kill_at_any_instruction(name, PipeSend { segment, a, victims, asleep });
        }
        _ => {
            let in_place = what == "receive in place";
            let operation = PipeReceive { segment, a, victims, waiting: 0, in_place };
            kill_at_any_instruction(name, operation);
        }
    }
}

pub fn byte_pipe(name: &str, words: &[&str]) {
    let segment = Segment::builder(name).pipe("pipe", 256).participants(4).create().unwrap();
    pipe::<Pipe<[u8]>>(name, segment, words[0]);
}

pub fn typed_pipe(name: &str, words: &[&str]) {
    let segment =
        Segment::builder(name).typed_pipe::<Wide>("pipe", SLOTS).participants(4).create().unwrap();
    pipe::<Pipe<Wide>>(name, segment, words[0]);
}
