//! What a guest wrote to its serial line, from the file in which its hypervisor keeps it.
//!
//! Called by drivers of this machine. A guest may write what it likes, for as long as it likes: the
//! end of it is read and nothing here looks at what it means. The file is named by the domain's
//! XML; only a regular file is read, and no link in its place is followed.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The most that is ever read, in bytes: Nova's `MAX_CONSOLE_BYTES`.
const MOST: u64 = 100 * 1024;

/// The end of a guest's log. Untrusted text: it may hold whatever moves a terminal.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConsoleLog(String);

impl ConsoleLog {
    /// The last `lines` of what a guest wrote, or all of it. What is no UTF-8 becomes U+FFFD. A line
    /// that has no end yet counts as one.
    pub fn new(bytes: &[u8], lines: Option<u32>) -> Self {
        let text = String::from_utf8_lossy(bytes);
        Self(match lines {
            None => text.into_owned(),
            Some(lines) => last(&text, lines).to_owned(),
        })
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Not what it holds: that is not ours, and not for our log.
impl fmt::Debug for ConsoleLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsoleLog of {} bytes", self.0.len())
    }
}

fn last(text: &str, lines: u32) -> &str {
    let Some(before) = lines.checked_sub(1) else {
        return "";
    };
    let ended = text.strip_suffix('\n').unwrap_or(text);
    let mut ends = ended.rmatch_indices('\n');
    let nth = ends.nth(usize::try_from(before).unwrap_or(usize::MAX));
    nth.and_then(|(end, _)| text.get(end + 1..)).unwrap_or(text)
}

/// Reads the end of the log at `path`; nothing if there is no such file. Blocks.
///
/// Errors: it cannot be read, or is no regular file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(now) = end_of(path, MOST)? else {
        return Ok(None);
    };
    let room = MOST.saturating_sub(now.len().try_into().unwrap_or(u64::MAX));
    if room == 0 {
        return Ok(Some(now));
    }
    // virtlogd goes on in a new file when one is full.
    let before = end_of(&rotated(path), room)?.unwrap_or_default();
    Ok(Some([before, now].concat()))
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".0");
    name.into()
}

/// No more than the file's own length: what the kernel makes up as it is read (`/proc`) has none.
fn end_of(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut file = match open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.metadata()?.len();
    let count = length.min(most);
    let _start = file.seek(SeekFrom::Start(length.saturating_sub(count)))?;
    let mut bytes = Vec::new();
    let _count = file.take(count).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Without waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let other = || io::Error::other("it is no regular file");
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::LOOP | Errno::NXIO) => return Err(other()),
        file => File::from(file?),
    };
    let regular = file.metadata()?.is_file();
    regular.then_some(file).ok_or_else(other)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn place() -> (TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("serial.log");
        (place, path)
    }

    fn lines(text: &str, lines: u32) -> String {
        ConsoleLog::new(text.as_bytes(), Some(lines)).into_text()
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        assert_eq!(lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(lines("a\nb\nlogin: ", 2), "b\nlogin: ");
        assert_eq!(lines("a\n\n\n", 2), "\n\n");
        assert_eq!(lines("a\nb\n", 3), "a\nb\n");
        assert_eq!(lines("a\nb\n", 0), "");
        assert_eq!(lines("", 1), "");
        assert_eq!(lines("\n", u32::MAX), "\n");
    }

    #[test]
    fn bytes_that_are_no_text_spoil_nothing_around_them() {
        let log = ConsoleLog::new(b"boot\xff\xfe\x1b[2J\n", None);

        assert_eq!(format!("{log:?}"), "ConsoleLog of 15 bytes");
        assert_eq!(log.into_text(), "boot\u{fffd}\u{fffd}\u{1b}[2J\n");
    }

    #[test]
    fn the_end_of_a_long_log_is_read() {
        let (_place, path) = place();
        fs::write(&path, [vec![b'a'; 300_000], b"end".to_vec()].concat()).unwrap();

        let read = read(&path).unwrap().unwrap();

        assert_eq!(read.len(), 102_400);
        assert!(read.ends_with(b"aend"));
    }

    #[test]
    fn a_log_that_just_began_is_preceded_by_the_one_before() {
        let (place, path) = place();
        fs::write(place.path().join("serial.log.0"), vec![b'a'; 300_000]).unwrap();
        fs::write(&path, "new").unwrap();

        let read = read(&path).unwrap().unwrap();

        assert_eq!(read.len(), 102_400);
        assert!(read.ends_with(b"aanew"));
    }

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        let (place, path) = place();
        let secret = place.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, &path).unwrap();
        let pipe = place.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let socket = place.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();

        for path in [
            &path,
            &pipe,
            &socket,
            &"/dev/zero".into(),
            &place.path().to_owned(),
        ] {
            let refused = read(path).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "it is no regular file",
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn what_the_kernel_makes_up_is_no_log() {
        assert_eq!(read(Path::new("/proc/self/environ")).unwrap().unwrap(), b"");
    }

    #[test]
    fn a_log_that_was_never_written_is_none() {
        let (_place, path) = place();
        assert_eq!(read(&path).unwrap(), None);
    }
}
