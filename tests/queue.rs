//! The queue's behaviour within one process.

use slipring::*;
use std::time::Duration;

fn name(test: &str) -> String {
    format!("test-queue-{}-{test}", std::process::id())
}

#[test]
fn order_and_capacity() {
    let queue = Queue::<u64>::create(&name("order"), 7).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    for i in 0..7 {
        tx.try_send(i).unwrap();
    }
    assert!(matches!(tx.try_send(7), Err(SendError::Full(7))));
    assert!(queue.is_full());
    for i in 0..7 {
        assert_eq!(rx.try_recv().unwrap(), i);
    }
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    assert!(matches!(rx.recv_timeout(Duration::from_millis(30)), Err(RecvError::Timeout)));
    drop(tx);
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    let mut tx = queue.sender().unwrap();
    tx.send(1).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    println!("{:?}", queue.counters());
}

#[test]
fn threads() {
    let n = name("threads");
    let queue = Queue::<u64>::create(&n, 64).unwrap();
    let other = Queue::<u64>::open(&n).unwrap();
    let t = std::time::Instant::now();
    std::thread::scope(|s| {
        for p in 0..2u64 {
            let mut tx = queue.sender().unwrap();
            s.spawn(move || {
                for i in 0..1_000_000 {
                    tx.send(p << 32 | i).unwrap();
                }
            });
        }
        let rxs: Vec<_> = (0..2).map(|_| other.receiver().unwrap()).collect();
        let total: u64 = rxs
            .into_iter()
            .map(|mut rx| {
                s.spawn(move || {
                    let mut n = 0u64;
                    while rx.recv().is_ok() {
                        n += 1;
                    }
                    n
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|t| t.join().unwrap())
            .sum();
        assert_eq!(total, 2_000_000);
    });
    println!("{:?}", t.elapsed());
}
