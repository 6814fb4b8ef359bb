//! Starts victims and learns of their ends, whatever they are written in.

use super::adapters::Queued;
use super::victim::Role;
use crate::Result;
use std::any::Any;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By the strike.
    Killed,
    /// By itself, as it should.
    Done,
    /// By itself, with an error.
    Failed,
}

/// A victim to be started.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub role: Role,
    pub number: usize,
    pub life: u64,
}

pub trait Herd {
    /// Starts a victim; its process.
    fn start(&mut self, order: Order) -> Result<i32>;
    /// Those that have ended since.
    fn ended(&mut self) -> Result<Vec<(i32, End)>>;
}

/// Where victims' standard error goes.
pub fn complaints(scratch: &Path) -> Result<File> {
    Ok(File::options().append(true).create(true).open(scratch.join("complaints"))?)
}

/// Victims that are programs, children of this one.
pub struct Programs {
    command: Box<dyn Fn(Order) -> Command>,
    /// The ends of a pipe, for those whose queue it is.
    pipe: Option<(OwnedFd, OwnedFd)>,
    scratch: PathBuf,
    alive: Vec<Child>,
}

impl Programs {
    /// This very program.
    pub fn own(
        queue: Queued,
        name: &str,
        ledger: &Path,
        scratch: &Path,
        made: Box<dyn Any>,
    ) -> Result<Programs> {
        let program = std::env::current_exe()?;
        let value = clap::ValueEnum::to_possible_value(&queue).ok_or("a queue without a name")?;
        let (value, name, ledger) =
            (value.get_name().to_owned(), name.to_owned(), ledger.to_owned());
        let command = move |order: Order| {
            let mut command = Command::new(&program);
            command.args(["victim", &value, order.role.name()]);
            command.arg(order.number.to_string()).arg(order.life.to_string());
            command.arg(&ledger).arg(&name);
            command
        };
        let pipe = made.downcast::<(OwnedFd, OwnedFd)>().ok().map(|ends| *ends);
        Ok(Programs {
            command: Box::new(command),
            pipe,
            scratch: scratch.to_owned(),
            alive: Vec::new(),
        })
    }

    /// Another program, which is given role, number, life, ledger and name.
    pub fn other(program: &Path, name: &str, ledger: &Path, scratch: &Path) -> Programs {
        let (program, name, ledger) = (program.to_owned(), name.to_owned(), ledger.to_owned());
        let command = move |order: Order| {
            let mut command = Command::new(&program);
            command.arg(order.role.name());
            command.arg(order.number.to_string()).arg(order.life.to_string());
            command.arg(&ledger).arg(&name);
            command
        };
        Programs {
            command: Box::new(command),
            pipe: None,
            scratch: scratch.to_owned(),
            alive: Vec::new(),
        }
    }
}

impl Herd for Programs {
    fn start(&mut self, order: Order) -> Result<i32> {
        let mut command = (self.command)(order);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints(&self.scratch)?);
        if let Some((read, write)) = &self.pipe {
            match order.role {
                Role::Producer => command.stdout(write.try_clone()?),
                Role::Consumer => command.stdin(read.try_clone()?),
            };
        }
        let child = command.spawn()?;
        let pid = child.id() as i32;
        self.alive.push(child);
        Ok(pid)
    }

    fn ended(&mut self) -> Result<Vec<(i32, End)>> {
        let mut all = Vec::new();
        for child in &mut self.alive {
            if let Some(status) = child.try_wait()? {
                let end = match (status.signal(), status.success()) {
                    (Some(libc::SIGKILL), _) => End::Killed,
                    (_, true) => End::Done,
                    _ => End::Failed,
                };
                all.push((child.id() as i32, end));
            }
        }
        self.alive.retain(|child| !all.iter().any(|(pid, _)| *pid == child.id() as i32));
        Ok(all)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.alive {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Victims that are forked by a Python program, because their queue can only be
/// inherited.
pub struct Python {
    keeper: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Python {
    pub fn start(queue: &str, ledger: &Path, scratch: &Path) -> Result<Python> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/torture.py");
        let mut keeper = Command::new("python3")
            .arg(script)
            .arg(queue)
            .arg(ledger)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints(scratch)?)
            .spawn()?;
        let say = keeper.stdin.take().ok_or("no pipe")?;
        let hear = BufReader::new(keeper.stdout.take().ok_or("no pipe")?);
        Ok(Python { keeper, say, hear })
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.say, "{question}")?;
        let mut answer = String::new();
        match self.hear.read_line(&mut answer)? {
            0 => Err("the Python program ended".into()),
            _ => Ok(answer.trim().to_owned()),
        }
    }
}

impl Herd for Python {
    fn start(&mut self, Order { role, number, life }: Order) -> Result<i32> {
        Ok(self.ask(&format!("start {} {number} {life}", role.name()))?.parse()?)
    }

    fn ended(&mut self) -> Result<Vec<(i32, End)>> {
        let answer = self.ask("ended")?;
        let one = |word: &str| -> Result<(i32, End)> {
            let (pid, status) = word.split_once(':').ok_or("an answer without a status")?;
            let end = match status.parse::<i32>()? {
                0 => End::Done,
                status if status == -libc::SIGKILL => End::Killed,
                _ => End::Failed,
            };
            Ok((pid.parse()?, end))
        };
        answer.split_whitespace().map(one).collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Its end of file; it kills its children then, and ends.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
