//! The machine, as far as it bears on how fast anything is here.

use crate::Result;
use rustix::thread::{CpuSet, sched_getaffinity};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::read_to_string;

/// What stands beside every figure.
#[derive(Serialize)]
pub struct Machine {
    cpu: String,
    kernel: String,
    /// The CPUs that this process may run on.
    cpus: Vec<usize>,
    /// CPUs of the two sides; the scheduler's choice if there are none.
    placed_on: Option<[usize; 2]>,
    /// How the frequency is chosen, where the kernel says so.
    governors: BTreeSet<String>,
    virtual_machine: bool,
    /// How many processes wanted to run in the last minute, on average.
    load: Option<f64>,
    debug_build: bool,
    version: &'static str,
}

impl Machine {
    /// This one, with the two sides on these CPUs.
    pub fn with(placed_on: Option<[usize; 2]>) -> Result<Machine> {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let cpus = cpus()?;
        if let Some(cpu) = placed_on.iter().flatten().find(|cpu| !cpus.contains(cpu)) {
            return Err(format!("CPU {cpu} is none of {cpus:?}, where this process may run").into());
        }
        let governor = |cpu| {
            read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
        };
        let governors = cpus.iter().filter_map(|cpu| Some(governor(cpu).ok()?.trim().to_owned()));
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Machine {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            kernel: kernel.trim().to_owned(),
            governors: governors.collect(),
            virtual_machine: field("flags")
                .unwrap_or_default()
                .split(' ')
                .any(|f| f == "hypervisor"),
            load: load(),
            debug_build: cfg!(debug_assertions),
            version: env!("CARGO_PKG_VERSION"),
            placed_on,
            cpus,
        })
    }

    /// What spoils the figures, of at most so many processes at once on so many CPUs.
    pub fn warnings(&self, processes: usize, cpus: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |spoilt, why: String| {
            if spoilt {
                warnings.push(why);
            }
        };
        warn(self.debug_build, "a debug build: run it with --release".to_owned());
        let one = "the two sides take turns, in slices of milliseconds";
        warn(self.cpus.len() < 2, format!("one CPU: {one}"));
        let many = format!("{processes} processes on {cpus} CPUs: some take turns");
        warn(cpus >= 2 && processes > cpus, many);
        if let Some([here, there]) = self.placed_on {
            let siblings = format!("CPUs {here} and {there} are of one core, and share it");
            warn(here != there && same_core(here, there), siblings);
        }
        let together = self.placed_on.is_some_and(|[here, there]| here == there);
        warn(together && self.cpus.len() > 1, format!("both sides on one CPU: {one}"));
        if let Some(load) = self.load {
            warn(load > 1.0, format!("load average {load}: others use the CPUs, too"));
        }
        let lazy: Vec<&str> =
            self.governors.iter().map(String::as_str).filter(|g| *g != "performance").collect();
        warn(!lazy.is_empty(), format!("frequency governor {}: the clock varies", lazy.join(", ")));
        let other = "a virtual machine: its host decides when it runs, and wake-ups go through it";
        warn(self.virtual_machine, other.to_owned());
        warnings
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, kernel, cpus, version, .. } = self;
        writeln!(f, "slipring {version} on {cpu}, {} CPUs, Linux {kernel}", cpus.len())?;
        match self.placed_on {
            Some([here, there]) => {
                write!(f, "measuring on CPU {here}, the other side on CPU {there}")
            }
            None => write!(f, "both sides wherever the scheduler puts them"),
        }
    }
}

/// The CPUs that this process may run on.
pub fn cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

/// Whether two CPUs are threads of one core, as far as the kernel says so.
pub fn same_core(one: usize, other: usize) -> bool {
    let core = |cpu| {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        read_to_string(format!("{folder}/thread_siblings_list")).ok()
    };
    // The same list for all threads of a core.
    core(one).is_some_and(|siblings| core(other) == Some(siblings))
}

/// How many processes wanted to run in the last minute, on average.
pub fn load() -> Option<f64> {
    read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Machine {
        Machine {
            cpu: "a CPU".to_owned(),
            kernel: "6.0".to_owned(),
            cpus: vec![0, 1],
            placed_on: Some([0, 1]),
            governors: BTreeSet::from(["performance".to_owned()]),
            virtual_machine: false,
            load: Some(0.5),
            debug_build: false,
            version: "0",
        }
    }

    #[test]
    fn whatever_spoils_the_figures_is_warned_of() {
        let warnings = |machine: &Machine| {
            let mut all = machine.warnings(2, 2);
            // Whatever this machine is like.
            all.retain(|warning| !warning.contains("of one core"));
            all
        };
        assert_eq!(warnings(&good()), [""; 0]);
        let many = good().warnings(3, 2);
        assert!(many.contains(&"3 processes on 2 CPUs: some take turns".to_owned()), "{many:?}");
        let spoilt = [
            Machine { debug_build: true, ..good() },
            Machine { cpus: vec![1], placed_on: None, ..good() },
            Machine { placed_on: Some([1, 1]), ..good() },
            Machine { load: Some(1.5), ..good() },
            Machine { governors: BTreeSet::from(["powersave".to_owned()]), ..good() },
            Machine { virtual_machine: true, ..good() },
        ];
        for machine in spoilt {
            let warnings = warnings(&machine);
            assert_eq!(warnings.len(), 1, "{machine}: {warnings:?}");
        }
    }

    #[test]
    fn this_machine_has_what_it_says() {
        let machine = Machine::with(None).unwrap();
        assert!(!machine.cpu.is_empty() && !machine.kernel.is_empty() && !machine.cpus.is_empty());
        let cpu = machine.cpus[0];
        assert!(same_core(cpu, cpu) || !std::path::Path::new("/sys/devices/system/cpu").exists());
        assert!(Machine::with(Some([cpu, cpu])).is_ok());
        assert!(Machine::with(Some([cpu, 100_000])).is_err());
    }
}
