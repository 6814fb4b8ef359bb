//! The versions of what is compared.

use std::process::Command;

/// A crate's version, as this program was built with it.
pub fn of_crate(name: &str) -> String {
    const LOCK: &str = include_str!("../Cargo.lock");
    let entry = format!("name = \"{name}\"\nversion = \"");
    LOCK.split_once(&entry)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("unknown".into(), |(version, _)| version.into())
}

/// The first line that a program prints.
pub fn of_program(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The processor, the kernel, the compiler.
pub fn of_machine() -> Vec<(&'static str, String)> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let virtual_machine = cpuinfo.contains(" hypervisor");
    let processors = std::thread::available_parallelism().map_or(0, |count| count.get());
    vec![
        ("processor", model.trim().to_owned()),
        ("processors", processors.to_string()),
        ("virtual machine", if virtual_machine { "yes" } else { "no" }.to_owned()),
        ("kernel", kernel.trim().to_owned()),
        ("compiler", of_program("rustc", &["--version"]).unwrap_or("unknown".into())),
    ]
}
