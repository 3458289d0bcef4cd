//! What has changed in a directory since it was asked last, as the kernel tells it (inotify(7)).
//!
//! The kernel queues a notice before the call that made the change returns, so who reads the queue
//! to its end knows of everything that was done before. Called by the directory driver on a
//! blocking thread; knows names, no XML. What no notice comes for is in [`is_told`].

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, CWD, FileType, FsWord, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// Everything that can change what a name in the directory holds, or whether it can be read.
/// `MODIFY` comes with each write, `CLOSE_WRITE` also for a file written through a mapping.
const CHANGES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// After these the names alone do not tell what changed.
const LOST: ReadFlags = ReadFlags::QUEUE_OVERFLOW
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::DELETE_SELF)
    .union(ReadFlags::MOVE_SELF);

/// File systems that only this machine changes, so that it knows of every change: bcachefs, btrfs,
/// ext2 to ext4, F2FS, overlayfs, ramfs, tmpfs, XFS and ZFS (linux/magic.h and their own headers).
const LOCAL: [FsWord; 9] = [
    0xca45_1a4e,
    0x9123_683e,
    0xef53,
    0xf2f5_2010,
    0x794c_7630,
    0x8584_58f6,
    0x0102_1994,
    0x5846_5342,
    0x2fc1_2fc1,
];

/// One read's worth: a dozen notices of the longest names, a hundred of usual ones.
const BUFFER: usize = 4096;

/// Four full queues (`fs.inotify.max_queued_events` is 16,384 unless set): whoever writes faster
/// than this is read shall not hold a look-up for ever.
const MAX_NOTICES: usize = 65_536;

/// A directory under watch. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Notices {
    path: PathBuf,
    /// The device and inode that are watched; what stands at the path may become another.
    place: (u64, u64),
    queue: OwnedFd,
}

/// What to read again.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Changes {
    /// These names, whether they are still there or not.
    Names(BTreeSet<OsString>),
    /// Everything: the queue was too short, or the directory is gone or another. The watch is
    /// then of no more use.
    All,
}

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwatched {
    /// Other machines, or the kernel itself, change it without a notice.
    #[error("file system {0:#x} is not known to tell of changes")]
    FileSystem(FsWord),
    /// It is not there, or a limit of the kernel is reached.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for Unwatched {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Notices {
    /// Notices of all that changes in `path` from now on; read the directory after this, not
    /// before.
    pub(super) fn of(path: &Path) -> Result<Self, Unwatched> {
        // Held open so that what is looked at, watched and remembered is one directory.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let kind = rustix::fs::fstatfs(&directory)?.f_type;
        if !LOCAL.contains(&kind) {
            return Err(Unwatched::FileSystem(kind));
        }
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let opened = format!("/proc/self/fd/{}", directory.as_raw_fd());
        inotify::add_watch(&queue, opened, CHANGES)?;
        Ok(Self {
            path: path.to_owned(),
            place: place(&directory.metadata()?),
            queue,
        })
    }

    /// What changed since the last call, as far as `matters` wants to know.
    pub(super) fn take(&self, matters: impl Fn(&OsStr) -> bool) -> Changes {
        let same = fs::metadata(&self.path).is_ok_and(|now| place(&now) == self.place);
        let names = same.then(|| self.names(matters)).flatten();
        names.map_or(Changes::All, Changes::Names)
    }

    /// Reads the queue to its end. Nothing if that does not tell what changed.
    fn names(&self, matters: impl Fn(&OsStr) -> bool) -> Option<BTreeSet<OsString>> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.queue, &mut buffer);
        let mut names = BTreeSet::new();
        for _ in 0..MAX_NOTICES {
            match reader.next() {
                Ok(event) => {
                    let name = name(&event)?;
                    if matters(name) && !names.contains(name) {
                        names.insert(name.to_owned());
                    }
                }
                Err(Errno::AGAIN) => return Some(names),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// The name that changed. Nothing for a notice of the directory itself.
fn name<'a>(event: &'a Event<'_>) -> Option<&'a OsStr> {
    let name = event
        .file_name()
        .map(|name| OsStr::from_bytes(name.to_bytes()));
    name.filter(|_| !event.events().intersects(LOST))
}

fn place(directory: &fs::Metadata) -> (u64, u64) {
    (directory.dev(), directory.ino())
}

/// Whether its directory's notices tell of every change of this file.
///
/// Not of one that can be written under another name (a symbolic link's target, a hard link) or
/// in another mount, and not of one that cannot be looked at. A name that is gone is told of.
/// A hard link made after this, or a mapping that outlives its file's closing, still escapes.
pub(super) fn is_told(path: &Path) -> bool {
    let wanted = StatxFlags::TYPE | StatxFlags::NLINK;
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted) {
        Err(error) => error == Errno::NOENT,
        Ok(entry) if entry.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => false,
        Ok(entry) => match FileType::from_raw_mode(entry.stx_mode.into()) {
            FileType::Symlink => false,
            FileType::RegularFile => entry.stx_nlink == 1,
            _ => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(notices: &Notices) -> Vec<String> {
        match notices.take(|_| true) {
            Changes::All => vec!["everything".to_owned()],
            Changes::Names(names) => names
                .into_iter()
                .map(|name| name.into_string().unwrap())
                .collect(),
        }
    }

    #[test]
    fn each_way_to_change_a_file_is_told_of_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("a"), "a").unwrap();
        let notices = Notices::of(place.path()).unwrap();
        let told = |change: &dyn Fn()| {
            change();
            changed(&notices)
        };

        assert_eq!(told(&|| ()), [""; 0]);
        assert_eq!(told(&|| fs::write(at("a"), "b").unwrap()), ["a"]);
        assert_eq!(told(&|| fs::rename(at("a"), at("b")).unwrap()), ["a", "b"]);
        let shorten = || {
            File::options()
                .write(true)
                .open(at("b"))
                .unwrap()
                .set_len(0)
        };
        assert_eq!(told(&|| shorten().unwrap()), ["b"]);
        let forbid = || {
            let mut mode = fs::metadata(at("b")).unwrap().permissions();
            mode.set_readonly(true);
            fs::set_permissions(at("b"), mode).unwrap();
        };
        assert_eq!(told(&forbid), ["b"]);
        assert_eq!(told(&|| fs::remove_file(at("b")).unwrap()), ["b"]);
        assert_eq!(told(&|| fs::create_dir(at("c")).unwrap()), ["c"]);
    }

    #[test]
    fn a_write_is_told_of_before_the_file_is_closed() {
        let place = tempfile::tempdir().unwrap();
        let file = File::create(place.path().join("a")).unwrap();
        let notices = Notices::of(place.path()).unwrap();

        io::Write::write_all(&mut &file, b"half").unwrap();

        assert_eq!(changed(&notices), ["a"]);
    }

    #[test]
    fn more_changes_than_the_kernel_keeps_are_told_of_as_everything() {
        let place = tempfile::tempdir().unwrap();
        let notices = Notices::of(place.path()).unwrap();
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let files = ["a", "b"].map(|name| File::create(place.path().join(name)).unwrap());

        // Two notices that are the same become one, so the files take turns.
        for _ in 0..=limit / 2 {
            for file in &files {
                io::Write::write_all(&mut &*file, b"x").unwrap();
            }
        }

        assert_eq!(changed(&notices), ["everything"]);
    }

    #[test]
    fn another_directory_at_the_path_is_told_of_as_everything() {
        let place = tempfile::tempdir().unwrap();
        let path = |end: &str| place.path().join(end);
        fs::create_dir_all(path("parent/domains")).unwrap();
        fs::create_dir_all(path("other/domains")).unwrap();
        let notices = Notices::of(&path("parent/domains")).unwrap();
        assert_eq!(changed(&notices), [""; 0]);

        // Nothing happens to the watched directory itself.
        fs::rename(path("parent"), path("before")).unwrap();
        fs::rename(path("other"), path("parent")).unwrap();

        assert_eq!(changed(&notices), ["everything"]);
    }

    #[test]
    fn what_other_machines_may_change_is_not_watched() {
        let proc = Notices::of(Path::new("/proc")).unwrap_err();
        let missing = Notices::of(Path::new("/nowhere")).unwrap_err();

        assert!(matches!(proc, Unwatched::FileSystem(_)), "{proc}");
        assert!(matches!(missing, Unwatched::Io(_)), "{missing}");
    }

    #[test]
    fn links_are_not_told_of_because_they_change_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("plain"), "").unwrap();
        fs::write(at("one"), "").unwrap();
        fs::hard_link(at("one"), at("two")).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("link")).unwrap();

        let told = ["plain", "gone", "", "one", "two", "link"].map(|name| is_told(&at(name)));

        assert_eq!(told, [true, true, true, false, false, false]);
    }
}
