//! iceoryx2's publish-subscribe.

use crate::Result;
use crate::speed::channel::{
    About, Channel, Delivery, Kind, Place, Rx, Shape, System, Tx, check, fill_raw, said,
};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

pub struct Iceoryx2;
pub struct Service(ServiceName, Shape);

/// A port; its node and service live as long.
pub struct IceoryxTx<const W: usize> {
    publisher: Publisher<ipc::Service, [u64; W], ()>,
    _service: PortFactory<ipc::Service, [u64; W], ()>,
    _node: Node<ipc::Service>,
}

pub struct IceoryxRx<const W: usize> {
    subscriber: Subscriber<ipc::Service, [u64; W], ()>,
    _service: PortFactory<ipc::Service, [u64; W], ()>,
    _node: Node<ipc::Service>,
}

impl System for Iceoryx2 {
    const ABOUT: About = About {
        name: "iceoryx2 publish-subscribe",
        crate_name: "iceoryx2",
        place: Place::Processes,
        delivery: Delivery::Broadcast,
        kinds: &[Kind::Trip, Kind::Stream, Kind::Many],
        most: (usize::MAX, usize::MAX),
        note: "ipc::Service, typed payload, in place by loan_uninit and receive; no safe overflow, \
               RetryUntilDelivered, so that nothing is lost; several subscribers each get every \
               message; waiting would need its event service beside it and is not measured",
    };
    type Channel<const W: usize> = Service;
}

impl Service {
    fn open<const W: usize>(
        &self,
    ) -> Result<(Node<ipc::Service>, PortFactory<ipc::Service, [u64; W], ()>)> {
        set_log_level(LogLevel::Error);
        let Service(name, shape) = self;
        let node = NodeBuilder::new().create::<ipc::Service>().or_else(said)?;
        let service = node
            .service_builder(name)
            .publish_subscribe::<[u64; W]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size(shape.capacity)
            .max_publishers(shape.producers)
            .max_subscribers(shape.consumers)
            .open_or_create()
            .or_else(said)?;
        Ok((node, service))
    }
}

impl<const W: usize> Channel<W> for Service {
    type Tx = IceoryxTx<W>;
    type Rx = IceoryxRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        Ok(Service(name.try_into().or_else(said)?, shape))
    }

    fn tx(&self) -> Result<IceoryxTx<W>> {
        let (node, service) = self.open()?;
        let publisher = service
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .or_else(said)?;
        Ok(IceoryxTx { publisher, _service: service, _node: node })
    }

    fn rx(&self) -> Result<IceoryxRx<W>> {
        let (node, service) = self.open()?;
        let subscriber = service.subscriber_builder().create().or_else(said)?;
        Ok(IceoryxRx { subscriber, _service: service, _node: node })
    }
}

impl<const W: usize> Tx<W> for IceoryxTx<W> {
    #[inline]
    fn try_send(&mut self, head: u64) -> bool {
        let Ok(mut sample) = self.publisher.loan_uninit() else { return false };
        // SAFETY: the loan is this publisher's, and the whole payload is written.
        let sample = unsafe {
            fill_raw::<W>(sample.payload_mut().as_mut_ptr(), head);
            sample.assume_init()
        };
        sample.send().unwrap();
        true
    }
}

impl<const W: usize> Rx<W> for IceoryxRx<W> {
    #[inline]
    fn try_recv(&mut self) -> Option<u64> {
        self.subscriber.receive().unwrap().map(|sample| check(&*sample))
    }
}
