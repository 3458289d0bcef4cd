//! A child process whose every line is kept, and shown when its test fails.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{PATIENCE, within};

/// Where a program that tests need lies.
///
/// Fails the test when it is missing: a test that silently does less proves nothing.
#[track_caller]
pub(crate) fn peer(program: &str) -> PathBuf {
    any_peer(&[program])
}

/// Where the first of these programs lies that there is.
#[track_caller]
pub(crate) fn any_peer(programs: &[&str]) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = env::split_paths(&path).collect();
    // where daemons lie, and where only root looks
    directories.push("/usr/sbin".into());
    let places = programs.iter().flat_map(|program| {
        directories
            .iter()
            .map(move |directory| directory.join(program))
    });
    places
        .into_iter()
        .find(|place| place.is_file())
        .unwrap_or_else(|| {
            let names = programs.join(" or ");
            panic!(
                "{names} is not installed; `./scripts/install test` installs what the tests need"
            )
        })
}

/// A command for `program` that dies with the test that started it, however that ends.
pub(crate) fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// One line that a process wrote.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) stream: Stream,
    pub(crate) text: String,
}

/// A running child. Killed when dropped; its lines are printed if the test is failing.
#[derive(Debug)]
pub(crate) struct Process {
    label: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<Line>,
    ended: usize,
}

impl Process {
    /// Starts `command`, with nothing on its stdin unless the caller gave it something.
    pub(crate) fn spawn(label: &str, command: &mut Command) -> Self {
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {label}: {error}"));
        let output = Arc::new(Output::default());
        collect(Stream::Out, child.stdout.take().unwrap(), &output);
        collect(Stream::Err, child.stderr.take().unwrap(), &output);
        Self {
            label: label.to_owned(),
            child,
            output,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far, both streams, in the order of their arrival.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.output.written.lock().unwrap().lines.clone()
    }

    /// One stream so far, as text.
    pub(crate) fn text(&self, stream: Stream) -> String {
        let lines = self.lines();
        let texts = lines.into_iter().filter(|line| line.stream == stream);
        texts.map(|line| line.text + "\n").collect()
    }

    /// Waits for a line that `pick` takes; fails at once when the process can write no more.
    #[track_caller]
    pub(crate) fn wait_for_line<T>(&self, what: &str, pick: impl FnMut(&Line) -> Option<T>) -> T {
        self.wait_longer_for_line(PATIENCE, what, pick)
    }

    /// The same for what takes long to start.
    #[track_caller]
    pub(crate) fn wait_longer_for_line<T>(
        &self,
        limit: Duration,
        what: &str,
        pick: impl FnMut(&Line) -> Option<T>,
    ) -> T {
        let found = self.line_within(limit, pick);
        found.unwrap_or_else(|| panic!("{} never wrote {what}", self.label))
    }

    fn line_within<T>(
        &self,
        limit: Duration,
        mut pick: impl FnMut(&Line) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        let mut written = self.output.written.lock().unwrap();
        loop {
            if let Some(found) = written.lines[seen..].iter().find_map(&mut pick) {
                return Some(found);
            }
            seen = written.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if written.ended == 2 || left.is_zero() {
                return None;
            }
            written = self.output.changed.wait_timeout(written, left).unwrap().0;
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; the exit code, or minus the signal that killed it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        self.wait_longer(PATIENCE)
    }

    /// The same for what takes long.
    #[track_caller]
    pub(crate) fn wait_longer(&mut self, limit: Duration) -> i32 {
        let what = format!("the end of {}", self.label);
        let status = within(limit, &what, || self.child.try_wait().unwrap());
        let silent = |_: &Line| None::<()>;
        assert!(self.line_within(PATIENCE, silent).is_none());
        let signal = || -status.signal().unwrap_or_default();
        status.code().unwrap_or_else(signal)
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_ended = self.child.kill().is_err();
        let _status = self.child.wait();
        if thread::panicking() {
            eprintln!("--- what {} wrote:", self.label);
            for line in self.lines() {
                eprintln!("{}", line.text);
            }
        }
    }
}

fn collect(stream: Stream, from: impl Read + Send + 'static, into: &Arc<Output>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            into.written
                .lock()
                .unwrap()
                .lines
                .push(Line { stream, text });
            into.changed.notify_all();
            bytes.clear();
        }
        into.written.lock().unwrap().ended += 1;
        into.changed.notify_all();
    });
}
