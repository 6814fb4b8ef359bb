//! ipc-channel, by way of its channels of bytes.

use crate::Result;
use crate::speed::channel::{
    About, Channel, Delivery, Kind, Once, Origin, Place, Rx, Shape, System, Tx, check_bytes, fill,
};
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, bytes_channel};
use std::sync::Mutex;

pub struct IpcChannel;
pub struct Ends(Mutex<IpcBytesSender>, Once<IpcBytesReceiver>, Shape);
pub struct IpcTx<const W: usize>(IpcBytesSender, Box<[u64; W]>);
pub struct IpcRx(IpcBytesReceiver, Shape);

impl System for IpcChannel {
    const ABOUT: About = About {
        name: "ipc-channel",
        origin: Origin::Crate("ipc-channel"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Many],
        streams_block: true,
        most: (usize::MAX, 1),
        note: "bytes_channel, without serialising; send and recv (try_recv where both sides \
               poll); unbounded, in so far as the kernel's socket buffers are",
    };
    type Channel<const W: usize> = Ends;
}

impl<const W: usize> Channel<W> for Ends {
    type Tx = IpcTx<W>;
    type Rx = IpcRx;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        let (sender, receiver) = bytes_channel()?;
        Ok(Ends(sender.into(), Once::one(receiver), shape))
    }

    fn tx(&self) -> Result<IpcTx<W>> {
        Ok(IpcTx(self.0.lock().map_err(|_| "poisoned")?.clone(), Box::new([0; W])))
    }

    fn rx(&self) -> Result<IpcRx> {
        Ok(IpcRx(self.1.take()?, self.2))
    }
}

impl<const W: usize> Tx<W> for IpcTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        self.send(head);
        true
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        fill(&mut self.1, head);
        self.0.send(bytemuck::bytes_of(&*self.1)).unwrap();
    }
}

impl<const W: usize> Rx<W> for IpcRx {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        if self.1.blocking {
            return Some(Rx::<W>::recv(self));
        }
        match self.0.try_recv() {
            Ok(bytes) => Some(check_bytes::<W>(&bytes)),
            Err(TryRecvError::Empty) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check_bytes::<W>(&self.0.recv().unwrap())
    }
}
