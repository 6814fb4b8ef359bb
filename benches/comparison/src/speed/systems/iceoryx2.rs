//! iceoryx2's publish-subscribe.

use crate::Result;
use crate::speed::channel::{
    About, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check, fill_raw, said,
};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

pub struct Iceoryx2;

type Factory<const W: usize> = PortFactory<ipc::Service, [u64; W], ()>;

/// A service, in a folder and under a prefix of its own, so that what a killed
/// side leaves behind can be swept.
pub struct Service {
    name: String,
    shape: Shape,
}

/// A port; its node and service live as long.
pub struct IceoryxTx<const W: usize> {
    publisher: Publisher<ipc::Service, [u64; W], ()>,
    _service: Factory<W>,
    _node: Node<ipc::Service>,
}

pub struct IceoryxRx<const W: usize> {
    subscriber: Subscriber<ipc::Service, [u64; W], ()>,
    _service: Factory<W>,
    _node: Node<ipc::Service>,
}

impl System for Iceoryx2 {
    const ABOUT: About = About {
        name: "iceoryx2 publish-subscribe",
        origin: Origin::Crate("iceoryx2"),
        place: Place::Processes,
        delivery: Delivery::Broadcast,
        kinds: &[Kind::Trip, Kind::Stream, Kind::Many],
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "ipc::Service, typed payload, in place by loan_uninit and receive; no safe overflow, \
               RetryUntilDelivered, so that nothing is lost; several subscribers each get every \
               message; waiting would need its event service beside it and is not measured",
    };
    type Channel<const W: usize> = Service;
}

impl Service {
    fn root(&self) -> String {
        std::env::temp_dir().join(&self.name).to_string_lossy().into_owned()
    }

    fn open<const W: usize>(&self) -> Result<(Node<ipc::Service>, Factory<W>)> {
        set_log_level(LogLevel::Error);
        let Service { name, shape } = self;
        let mut config = Config::default();
        let root = Path::new(self.root().as_bytes()).or_else(said)?;
        config.global.set_root_path(&root);
        config.global.prefix = FileName::new(format!("{name}_").as_bytes()).or_else(said)?;
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>().or_else(said)?;
        let service = node
            .service_builder(&ServiceName::new(name).or_else(said)?)
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
        Ok(Service { name: name.into(), shape })
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

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.root());
        let Ok(files) = std::fs::read_dir("/dev/shm") else { return };
        let prefix = format!("{}_", self.name);
        for file in files.flatten() {
            if file.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

impl<const W: usize> Tx<W> for IceoryxTx<W> {
    #[inline(always)]
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
    /// Until a subscriber has looked for its publishers, what they send beyond
    /// its buffer is dropped, whatever the strategy.
    fn settle(&mut self) {
        self.subscriber.update_connections().unwrap();
    }

    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        self.subscriber.receive().unwrap().map(|sample| check(&sample))
    }
}
