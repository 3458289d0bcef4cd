use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Place;

/// What journald shows as the origin of an entry: `journalctl -t vncgate-audit`.
const IDENTIFIER: &str = "vncgate-audit";

/// How long the journal may take to take an entry.
const JOURNAL: Duration = Duration::from_secs(2);

/// Something that takes lines.
#[derive(Debug)]
pub(super) enum Sink {
    File(Appended),
    Journal { socket: UnixDatagram, at: PathBuf },
}

/// A file that is written at its end, and made anew when it has been renamed.
#[derive(Debug)]
pub(super) struct Appended {
    path: PathBuf,
    file: File,
    /// The last line is not whole: the disk was full in its middle.
    torn: bool,
}

impl Sink {
    pub(super) fn open(place: &Place) -> io::Result<Self> {
        match place {
            Place::File(path) => Ok(Self::File(Appended {
                path: path.clone(),
                file: open(path)?,
                torn: false,
            })),
            Place::Journal(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(JOURNAL))?;
                let at = path.clone();
                // A journal that is not there is a wrong path, or one that comes later.
                socket.connect(&at)?;
                Ok(Self::Journal { socket, at })
            }
        }
    }

    /// How many of `lines` are written, and what kept the next one from being so.
    pub(super) fn write<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a String>,
    ) -> (usize, io::Result<()>) {
        match self {
            Self::File(file) => file.write(lines),
            Self::Journal { socket, at } => {
                let mut written = 0_usize;
                for line in lines {
                    if let Err(error) = socket.send_to(&entry(line), &*at) {
                        return (written, Err(error));
                    }
                    written = written.saturating_add(1);
                }
                (written, Ok(()))
            }
        }
    }
}

impl Appended {
    fn write<'a>(&mut self, lines: impl Iterator<Item = &'a String>) -> (usize, io::Result<()>) {
        let mut written = 0_usize;
        let outcome = self.follow().and_then(|()| {
            for line in lines {
                self.append(line)?;
                written = written.saturating_add(1);
            }
            Ok(())
        });
        (written, outcome)
    }

    /// A line in one write, so that others who append do not land inside it.
    fn append(&mut self, line: &str) -> io::Result<()> {
        let start = if self.torn { "\n" } else { "" };
        let text = format!("{start}{line}\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let count = match self.file.write(rest) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) => Err(ErrorKind::WriteZero.into()),
                other => other,
            };
            rest = rest.get(count?..).unwrap_or_default();
            self.torn = !rest.is_empty();
        }
        Ok(())
    }

    /// Goes on in a new file when the path leads elsewhere by now, which is how logs are rotated.
    fn follow(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = open(&self.path)?;
        self.torn = false;
        Ok(())
    }
}

/// Never through a link: whoever can put one there must not choose what is written to.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    let link = || io::Error::other("it is a link, which is not followed");
    let nobody = || io::Error::other("it is a pipe that nobody reads");
    let file = match rustix::fs::open(path, flags, mode) {
        Err(Errno::LOOP) => return Err(link()),
        Err(Errno::NXIO) => return Err(nobody()),
        file => file?,
    };
    // Not to wait for a pipe's reader was for opening alone.
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(File::from(file))
}

/// A datagram of journald's native protocol. A line holds no line feed: JSON writes it as two
/// characters.
fn entry(line: &str) -> Vec<u8> {
    // 5 is "notice"
    format!("PRIORITY=5\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE={line}\n").into_bytes()
}
