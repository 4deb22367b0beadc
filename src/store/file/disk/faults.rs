//! Which of a store's system calls does not do what it should.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

/// What happens at one system call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The process dies after it.
    DiesAfter,
    /// The process dies before it.
    DiesBefore,
    /// The process dies in the middle of it, if it writes; else before it.
    DiesHalfway,
    /// It is done, and the operating system says that it failed.
    FailsDone,
    /// It is not done.
    FailsUndone,
}

/// The system calls of a store; its clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    plan: Option<(usize, Fault)>,
    held: Option<(&'static str, Receiver<()>)>,
    calls: Vec<&'static str>,
    is_dead: bool,
}

impl Faults {
    /// The fault is at the system call of this number.
    pub(crate) fn at(number: usize, fault: Fault) -> Self {
        let script = Script { plan: Some((number, fault)), ..Script::default() };
        Self(Arc::new(Mutex::new(script)))
    }

    /// The first system call of this name waits until something is sent, or nobody can send.
    pub(crate) fn holding(what: &'static str) -> (Self, Sender<()>) {
        let (release, released) = channel();
        let script = Script { held: Some((what, released)), ..Script::default() };
        (Self(Arc::new(Mutex::new(script))), release)
    }

    /// The system calls so far, also those that a dead process would have made.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.0.lock().calls.clone()
    }

    pub(super) fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let (fault, is_dead) = self.0.lock().next(what);
        let held = self.0.lock().held.take_if(|(held, _)| *held == what);
        if let Some((_, released)) = held {
            let _ = released.recv();
        }
        let done = match fault {
            None if is_dead => return Err(scripted()),
            None => return call(),
            Some(Fault::DiesAfter | Fault::FailsDone) => call(),
            Some(_) => return Err(scripted()),
        };
        done.and(Err(scripted()))
    }

    pub(super) fn write_half(&self, mut file: &File, bytes: &[u8]) {
        if self.0.lock().fault() == Some(Fault::DiesHalfway) {
            file.write_all(&bytes[..bytes.len() / 2]).unwrap();
        }
    }
}

impl Script {
    /// What happens at this call, and whether the process is dead.
    fn next(&mut self, what: &'static str) -> (Option<Fault>, bool) {
        let fault = self.fault();
        self.calls.push(what);
        self.is_dead |=
            matches!(fault, Some(Fault::DiesAfter | Fault::DiesBefore | Fault::DiesHalfway));
        (fault, self.is_dead)
    }

    /// What is planned for the next call.
    fn fault(&self) -> Option<Fault> {
        let (number, fault) = self.plan?;
        (number == self.calls.len()).then_some(fault)
    }
}

fn scripted() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "scripted")
}
