use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::line::Line;
use crate::model::{Address, TokenHash, UnixTime};

/// The largest file; what is larger is a mistake.
const MOST_BYTES: u64 = 16 << 20;

/// Files in a directory.
const MOST_FILES: usize = 1000;

/// A file changed within this many seconds may change again without a different stamp, because
/// file systems count time in ticks: it is read every time.
const SETTLING_S: i64 = 2;

/// What the files said when they were last read. Every method blocks.
#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    most: usize,
    files: BTreeMap<PathBuf, Page>,
    /// The broken lines that were told of: the first one of a file, and how many.
    told: HashMap<PathBuf, (usize, usize)>,
}

/// One file.
#[derive(Debug)]
struct Page {
    stamp: Stamp,
    targets: HashMap<TokenHash, Address>,
}

/// Differs when a file does, once the file has settled.
#[derive(Debug, Eq, PartialEq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = i64::try_from(UnixTime::now().0).unwrap_or(i64::MAX);
        let latest = self.modified.0.max(self.changed.0);
        latest.saturating_add(SETTLING_S) < now
    }
}

impl Shelf {
    pub(super) fn new(path: PathBuf, most: usize) -> Self {
        Self {
            path,
            most,
            files: BTreeMap::new(),
            told: HashMap::new(),
        }
    }

    /// Where a token leads; in a later line, or a file with a later name, if in several.
    pub(super) fn find(&self, token: &TokenHash) -> Option<Address> {
        let mut pages = self.files.values().rev();
        pages.find_map(|page| page.targets.get(token)).cloned()
    }

    /// Takes in what changed. Returns a sentence for everything that could not be read.
    pub(super) fn refresh(&mut self) -> Vec<String> {
        let listed = match list(&self.path) {
            Ok(listed) => listed,
            Err(why) => {
                self.files.clear();
                return vec![why];
            }
        };
        self.files.retain(|path, _| listed.contains_key(path));
        self.told.retain(|path, _| listed.contains_key(path));
        let mut faults = Vec::new();
        for (path, metadata) in listed {
            if let Err(why) = self.refresh_file(&path, &metadata) {
                let _stale = self.files.remove(&path);
                faults.push(why);
            }
        }
        faults
    }

    fn refresh_file(&mut self, path: &Path, metadata: &Metadata) -> Result<(), String> {
        let stamp = Stamp::of(metadata);
        let known = self.files.get(path);
        if known.is_some_and(|known| known.stamp == stamp && stamp.is_settled()) {
            return Ok(());
        }
        let _stale = self.files.remove(path);
        let room = self.most.saturating_sub(self.count());
        let text = read(path).map_err(|error| in_file(path, &error))?;
        let (targets, broken) = parse(&text);
        if targets.len() > room {
            let most = self.most;
            let why = format!("brings more tokens than the {most} that auth.max_tokens allows");
            return Err(in_file(path, &why));
        }
        self.tell(path, broken);
        let _new = self.files.insert(path.to_owned(), Page { stamp, targets });
        Ok(())
    }

    fn count(&self) -> usize {
        self.files.values().map(|page| page.targets.len()).sum()
    }

    /// Once for each state of a file, and nothing of what stands in a line: it may be a token.
    fn tell(&mut self, path: &Path, broken: Option<(usize, usize)>) {
        let Some((first, count)) = broken else {
            let _mended = self.told.remove(path);
            return;
        };
        if self.told.insert(path.to_owned(), (first, count)) != broken {
            let file = path.display();
            tracing::warn!(%file, line = first, broken = count, "skipped what is no `token: host:port`");
        }
    }
}

/// The files to read. Hidden ones are editors' and tools' own.
fn list(path: &Path) -> Result<BTreeMap<PathBuf, Metadata>, String> {
    let failed = |error: io::Error| in_file(path, &error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_file() {
        return Ok(BTreeMap::from([(path.to_owned(), metadata)]));
    }
    if !metadata.is_dir() {
        return Err(in_file(path, &"is neither a file nor a directory"));
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // what vanishes between the two calls is as good as gone before
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        if metadata.is_file() {
            let _new = files.insert(entry.path(), metadata);
        }
        if files.len() > MOST_FILES {
            return Err(in_file(path, &format!("holds over {MOST_FILES} files")));
        }
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let mut text = Zeroizing::new(Vec::with_capacity(size.min(1 << 20)));
    let _size = file.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|size| size > MOST_BYTES) {
        return Err(io::Error::other("is larger than 16 MiB"));
    }
    Ok(text)
}

/// The targets, and of the broken lines the first one's number and how many there are.
fn parse(text: &[u8]) -> (HashMap<TokenHash, Address>, Option<(usize, usize)>) {
    let mut targets = HashMap::new();
    let mut broken = None;
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        match Line::parse(line) {
            Line::Empty => {}
            Line::Target(token, address) => drop(targets.insert(token, address)),
            Line::Broken => {
                let (first, count) = broken.unwrap_or((number + 1, 0));
                broken = Some((first, count + 1));
            }
        }
    }
    (targets, broken)
}

fn in_file(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}
