mod explore;
mod invariants;
mod mutants;
mod protocol;
mod recovery;
mod scenarios;
mod world;

use explore::{explore, trace};
use protocol::Model;
use std::time::Instant;

#[test]
fn protocol() {
    for s in scenarios::SMALL {
        let begin = Instant::now();
        let model = Model::new(*s, None);
        let o = explore(&model, 3_000_000);
        println!("{:>9} states depth {} complete {} {:.2}s {}", o.states, o.depth, o.complete, begin.elapsed().as_secs_f64(), s.name);
        if let Some((v, way)) = o.violation {
            println!("{v:?}\n{}", trace(&model, &way));
        }
    }
}

#[test]
fn table() {
    for m in mutants::MUTANTS {
        println!("{m:?}");
        for s in scenarios::SMALL {
            let begin = Instant::now();
            let o = explore(&Model::new(*s, Some(m)), 300_000);
            if let Some((v, way)) = o.violation {
            println!("     {:>9} {} {v:?}  {}", o.states, way.len(), s.name);
            }
        }
    }
}
