//! Instances from a directory of domain XML: dumps that people keep, or libvirt's status files.
//!
//! Every look-up takes in all that changed before it came, so what libvirt wrote a moment ago
//! counts. The kernel tells which files those are ([`notices`]); where it cannot (network file
//! systems, links, a limit reached), the directory is listed and the times of its files compared.
//!
//! Reading happens on a blocking thread, one at a time per directory: a mount that hangs costs
//! that one thread, and look-ups after it end at their deadline. Look-ups that waited together
//! share one reading, so a thousand viewers coming back at once cost two, not a thousand.

mod notices;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use notices::{Changes, Notices, is_told};

use super::{BoxFuture, Driver, Fault, Logged, Survey, fault, is_meant, read_log};
use crate::compute::claim::claims;
use crate::compute::domain::{self, BadDomain, MAX_XML_BYTES};
use crate::model::{Host, Instance, InstanceId, InstanceRef, Target, UnixTime};

/// Shorter than [`super::DEADLINE`], so that the fault names the directory even where the
/// directory is only a part of a driver.
const DEADLINE: Duration = Duration::from_secs(4);

/// A file changed within this many seconds may change again without a different stamp, because
/// file systems count time in ticks (NFS and old ones in seconds): it is parsed every time.
const SETTLING_S: u64 = 2;

/// A directory of `*.xml`, not recursive.
#[derive(Debug)]
pub struct Directory {
    source: String,
    shelf: Arc<Mutex<Shelf>>,
    /// How many look-ups have ever come.
    arrivals: Arc<AtomicU64>,
}

impl Directory {
    /// A directory that must exist. `host_address` stands for listen addresses such as `0.0.0.0`.
    pub fn new(path: PathBuf, host_address: Host) -> Self {
        let source = path.display().to_string();
        let shelf = Shelf {
            path,
            host_address,
            source: source.clone(),
            may_be_missing: false,
            covered: 0,
            unlisted: None,
            files: BTreeMap::new(),
            notices: Err(String::new()),
            untold: BTreeSet::new(),
        };
        Self {
            source,
            shelf: Arc::new(Mutex::new(shelf)),
            arrivals: Arc::default(),
        }
    }

    /// A directory that is empty while it does not exist.
    pub fn if_present(path: PathBuf, host_address: Host) -> Self {
        let mut directory = Self::new(path, host_address);
        if let Some(shelf) = Arc::get_mut(&mut directory.shelf) {
            shelf.get_mut().may_be_missing = true;
        }
        directory
    }

    async fn look(&self, wanted: Wanted) -> Survey {
        let picked = self.read(move |shelf| shelf.pick(&wanted)).await;
        picked.unwrap_or_else(Survey::from)
    }

    async fn read<T: Send + 'static>(
        &self,
        pick: impl FnOnce(&Shelf) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let read = timeout(DEADLINE, self.read_at_leisure(pick)).await;
        read.unwrap_or_else(|_| {
            let why = format_args!("did not answer within {} s", DEADLINE.as_secs());
            Err(fault(&self.source, &why))
        })
    }

    /// The lock goes to the thread and stays there until it is done, whoever still waits for it.
    async fn read_at_leisure<T: Send + 'static>(
        &self,
        pick: impl FnOnce(&Shelf) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let arrivals = Arc::clone(&self.arrivals);
        let ticket = arrivals.fetch_add(1, Ordering::SeqCst);
        let mut locked = Arc::clone(&self.shelf).lock_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            locked.refresh_for(ticket, &arrivals);
            pick(&locked)
        });
        read.await.map_err(|panic| fault(&self.source, &panic))
    }
}

impl Driver for Directory {
    fn source(&self) -> &str {
        &self.source
    }

    fn wants_watching(&self) -> bool {
        true
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(self.look(Wanted::All))
    }

    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(self.look(Wanted::Meant(wanted.clone())))
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        Box::pin(self.look(Wanted::At(target.clone())))
    }

    /// The directory is free again while the log is read.
    fn console_log(&self, instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async move {
            let path = self.read(move |shelf| shelf.log_of(instance)).await?;
            read_log(&self.source, path).await
        })
    }
}

enum Wanted {
    All,
    Meant(InstanceRef),
    At(Target),
}

impl Wanted {
    fn takes(&self, instance: &Instance) -> bool {
        match self {
            Self::All => true,
            Self::Meant(wanted) => is_meant(instance, wanted),
            Self::At(target) => claims(instance, target),
        }
    }
}

/// The directory as it was read last, and what tells where it is not so any more.
#[derive(Debug)]
struct Shelf {
    path: PathBuf,
    host_address: Host,
    source: String,
    may_be_missing: bool,
    /// Look-ups that came before this one was read for are answered by what is here.
    covered: u64,
    /// Why the directory could not be listed.
    unlisted: Option<Fault>,
    files: BTreeMap<OsString, Known>,
    /// Else why the directory has to be listed each time.
    notices: Result<Notices, String>,
    /// The names that have to be looked at each time, although there are notices.
    untold: BTreeSet<OsString>,
}

/// What a file said, and when asking it again would be a waste.
#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// With the file of its log, wherever that is.
    Instance(Box<(Instance, Option<PathBuf>)>),
    Foreign,
    /// It may be readable next time.
    Unread(Fault),
    Broken(Fault),
}

/// Changes whenever a settled file does.
#[derive(Debug, Eq, PartialEq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            size: file.size(),
            inode: (file.dev(), file.ino()),
        }
    }

    /// Nothing for a file that may still change unseen, and for one from the future.
    fn if_settled(self) -> Option<Self> {
        let changed = u64::try_from(self.changed.0).ok()?;
        (changed.saturating_add(SETTLING_S) < UnixTime::now().0).then_some(self)
    }
}

impl Shelf {
    /// Reads the directory unless a reading began after look-up number `ticket` came.
    fn refresh_for(&mut self, ticket: u64, arrivals: &AtomicU64) {
        if ticket >= self.covered {
            self.covered = arrivals.load(Ordering::SeqCst);
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        match self.notices.as_ref().map(|notices| notices.take(is_xml)) {
            Ok(Changes::Names(names)) => self.reread(names),
            Ok(Changes::All) | Err(_) => self.list(),
        }
    }

    /// The watch begins before the listing, so that a change in between is seen next time.
    fn list(&mut self) {
        self.watch();
        self.untold.clear();
        let mut before = std::mem::take(&mut self.files);
        let names = self.names().map_err(|error| fault(&self.source, &error));
        self.unlisted = names.as_ref().err().cloned();
        for name in names.into_iter().flatten() {
            let known = before.remove(&name);
            self.take_in(name, known);
        }
        if let Some(fault) = &self.unlisted {
            self.notices = Err(fault.why.clone());
        }
    }

    fn watch(&mut self) {
        let watched = Notices::of(&self.path).map_err(|why| why.to_string());
        let before = std::mem::replace(&mut self.notices, watched);
        if let Err(why) = &self.notices
            && before.err().as_ref() != Some(why)
        {
            tracing::debug!(directory = %self.source, why, "listed at every look-up");
        }
    }

    fn reread(&mut self, changed: BTreeSet<OsString>) {
        let untold = std::mem::take(&mut self.untold);
        for name in untold.difference(&changed) {
            let known = self.files.remove(name);
            self.take_in(name.clone(), known);
        }
        // What a changed file said before counts for nothing, whatever its times say now.
        for name in changed {
            drop(self.files.remove(&name));
            self.take_in(name, None);
        }
    }

    fn take_in(&mut self, name: OsString, known: Option<Known>) {
        // Asked before the file is read: should it become a link after this, there is a notice.
        let told = is_told(&self.path.join(&name));
        let known = self.read(&name, known);
        let read = |known: &Known| !matches!(known.content, Content::Unread(_));
        if self.notices.is_ok() && !(told && known.as_ref().is_none_or(read)) {
            self.untold.insert(name.clone());
        }
        if let Some(known) = known {
            self.files.insert(name, known);
        }
    }

    fn pick(&self, wanted: &Wanted) -> Survey {
        let mut survey = Survey::default();
        survey.faults.extend(self.unlisted.clone());
        for known in self.files.values() {
            match &known.content {
                Content::Instance(known) if wanted.takes(&known.0) => {
                    survey.instances.push(known.0.clone());
                }
                Content::Unread(fault) | Content::Broken(fault) => {
                    survey.faults.push(fault.clone());
                }
                Content::Instance(_) | Content::Foreign => {}
            }
        }
        survey
    }

    /// Only where the domains are this machine's: elsewhere the path names somebody else's file.
    fn log_of(&self, id: InstanceId) -> Option<PathBuf> {
        if !matches!(&self.host_address, Host::Ip(ip) if ip.is_loopback()) {
            return None;
        }
        self.files.values().find_map(|known| match &known.content {
            Content::Instance(known) if known.0.id == id => known.1.clone(),
            _ => None,
        })
    }

    fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if self.may_be_missing && error.kind() == ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            entries => entries?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name()));
        names
            .filter(|name| name.as_deref().map_or(true, is_xml))
            .collect()
    }

    /// Nothing for what is no file, and for what vanished since the directory was listed.
    fn read(&self, name: &OsStr, known: Option<Known>) -> Option<Known> {
        let path = self.path.join(name);
        let known_as = |stamp: Stamp| known.filter(|known| known.stamp.as_ref() == Some(&stamp));
        match std::fs::metadata(&path) {
            Ok(file) if !file.is_file() => return None,
            Ok(file) => {
                if let Some(known) = known_as(Stamp::of(&file)) {
                    return Some(known);
                }
            }
            Err(error) => return self.unread(name, &error),
        }
        match open(&path) {
            Ok((stamp, bytes)) => Some(Known {
                stamp,
                content: self.parse(name, bytes),
            }),
            Err(error) => self.unread(name, &error),
        }
    }

    /// Without a stamp, so that the next look-up tries again.
    fn unread(&self, name: &OsStr, error: &io::Error) -> Option<Known> {
        (error.kind() != ErrorKind::NotFound).then(|| Known {
            stamp: None,
            content: Content::Unread(self.fault(name, &format_args!(" cannot be read: {error}"))),
        })
    }

    fn parse(&self, name: &OsStr, bytes: Vec<u8>) -> Content {
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_XML_BYTES) {
            return self.broken(name, &" is larger than 16 MiB");
        }
        let Ok(xml) = String::from_utf8(bytes) else {
            return self.broken(name, &" is not UTF-8");
        };
        let setting = domain::Setting {
            host_address: &self.host_address,
            source: &self.source,
            handover: domain::Handover::default(),
        };
        match domain::parse_with_log(&xml, &setting) {
            Ok(known) => Content::Instance(Box::new(known)),
            Err(foreign @ BadDomain::Foreign(_)) => {
                tracing::debug!(directory = %self.source, file = ?name, why = %foreign, "file skipped");
                Content::Foreign
            }
            Err(error) => self.broken(name, &format_args!(": {error}")),
        }
    }

    fn broken(&self, name: &OsStr, why: &dyn std::fmt::Display) -> Content {
        Content::Broken(self.fault(name, why))
    }

    fn fault(&self, name: &OsStr, why: &dyn std::fmt::Display) -> Fault {
        let why = format_args!("{}{why}", name.display()).to_string();
        fault(&self.source, &why)
    }
}

/// As the shell's `*.xml`: hidden files are editors' and rsync's own.
fn is_xml(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    !hidden && Path::new(name).extension() == Some(OsStr::new("xml"))
}

/// The stamp is the opened file's, taken before its bytes: a change in between shows next time.
fn open(path: &Path) -> io::Result<(Option<Stamp>, Vec<u8>)> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?).if_settled();
    let mut bytes = Vec::new();
    file.take(MAX_XML_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((stamp, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const VNC: &str = include_str!("../../../../tests/data/libvirt/vnc.xml");
    const OFF: &str = include_str!("../../../../tests/data/libvirt/off.xml");

    fn directory(files: &[(&str, &str)]) -> (TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(place.path().join(name), text).unwrap();
        }
        let directory = Directory::new(place.path().into(), "127.0.0.1".parse().unwrap());
        (place, directory)
    }

    fn names(survey: &Survey) -> Vec<&str> {
        let names = survey.instances.iter().map(|it| it.name.as_str());
        names.collect()
    }

    #[tokio::test]
    async fn a_broken_file_is_named_and_takes_nothing_else_down() {
        let (_place, directory) = directory(&[("a.xml", "<domain>\n</x>"), ("b.xml", VNC)]);

        let survey = directory.survey().await;

        assert_eq!(names(&survey), ["web-1"]);
        let [fault] = &survey.faults[..] else {
            panic!("{:?}", survey.faults)
        };
        assert_eq!(fault.why, "a.xml: line 2: expected 'domain' tag, not 'x'");
    }

    #[tokio::test]
    async fn what_is_no_domain_is_no_fault() {
        let (place, directory) = directory(&[
            ("network.xml", "<network><name>default</name></network>"),
            ("notes.txt", "not XML"),
            (".web-1.xml.swp", "not XML"),
            (".hidden.xml", "not XML"),
        ]);
        fs::create_dir(place.path().join("autostart.xml")).unwrap();
        std::os::unix::fs::symlink("/nowhere", place.path().join("gone.xml")).unwrap();

        assert_eq!(directory.survey().await, Survey::default());
    }

    #[tokio::test]
    async fn what_changes_is_seen_at_the_next_look_up() {
        let (place, directory) = directory(&[("a.xml", VNC)]);
        let a = place.path().join("a.xml");
        assert_eq!(names(&directory.survey().await), ["web-1"]);

        fs::write(&a, VNC.replace("web-1", "web-9")).unwrap();
        assert_eq!(names(&directory.survey().await), ["web-9"]);

        fs::write(place.path().join("b.xml"), OFF).unwrap();
        assert_eq!(names(&directory.survey().await), ["web-9", "off-1"]);

        fs::remove_file(&a).unwrap();
        assert_eq!(names(&directory.survey().await), ["off-1"]);
    }

    #[tokio::test]
    async fn a_file_rewritten_in_place_is_seen_though_size_and_time_stay() {
        let (place, directory) = directory(&[("a.xml", VNC)]);
        let a = place.path().join("a.xml");
        let time = fs::metadata(&a).unwrap().modified().unwrap();
        assert_eq!(names(&directory.survey().await), ["web-1"]);

        fs::write(&a, VNC.replace("web-1", "web-9")).unwrap();
        File::open(&a).unwrap().set_modified(time).unwrap();

        assert_eq!(names(&directory.survey().await), ["web-9"]);
    }

    #[tokio::test]
    async fn a_file_moved_in_or_out_or_over_another_is_seen() {
        let (place, directory) = directory(&[("a.xml", VNC), ("b.new", OFF)]);
        let at = |name: &str| place.path().join(name);
        assert_eq!(names(&directory.survey().await), ["web-1"]);

        fs::rename(at("b.new"), at("b.xml")).unwrap();
        assert_eq!(names(&directory.survey().await), ["web-1", "off-1"]);

        fs::rename(at("b.xml"), at("a.xml")).unwrap();
        assert_eq!(names(&directory.survey().await), ["off-1"]);

        fs::rename(at("a.xml"), at("a.old")).unwrap();
        assert_eq!(names(&directory.survey().await), [""; 0]);
    }

    #[tokio::test]
    async fn a_directory_removed_and_made_anew_is_read_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("domains");
        let write = |xml: &str| {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("a.xml"), xml).unwrap();
        };
        write(VNC);
        let directory = Directory::new(path.clone(), "127.0.0.1".parse().unwrap());
        assert_eq!(names(&directory.survey().await), ["web-1"]);

        fs::remove_dir_all(&path).unwrap();
        let gone = directory.survey().await;
        assert_eq!((gone.instances.len(), gone.faults.len()), (0, 1));
        write(OFF);
        assert_eq!(names(&directory.survey().await), ["off-1"]);

        fs::remove_dir_all(&path).unwrap();
        write(VNC);
        assert_eq!(names(&directory.survey().await), ["web-1"], "between two");
    }

    #[tokio::test]
    async fn a_link_is_followed_wherever_it_changes() {
        let (place, directory) = directory(&[]);
        let elsewhere = tempfile::tempdir().unwrap();
        let at = elsewhere.path().join("web.xml");
        std::os::unix::fs::symlink(&at, place.path().join("a.xml")).unwrap();
        assert_eq!(directory.survey().await, Survey::default());

        fs::write(&at, VNC).unwrap();
        assert_eq!(names(&directory.survey().await), ["web-1"]);

        fs::write(&at, VNC.replace("web-1", "web-9")).unwrap();
        assert_eq!(names(&directory.survey().await), ["web-9"]);

        fs::remove_file(place.path().join("a.xml")).unwrap();
        assert_eq!(directory.survey().await, Survey::default());
    }

    #[tokio::test]
    async fn what_no_notice_came_for_is_not_looked_at() {
        let (_place, directory) = directory(&[("a.xml", VNC)]);
        let mut shelf = Arc::clone(&directory.shelf).lock_owned().await;
        shelf.refresh();
        shelf.files.clear();

        shelf.refresh();

        assert_eq!(shelf.pick(&Wanted::All), Survey::default());
    }

    #[tokio::test]
    async fn a_watch_that_lost_its_place_is_replaced_by_a_full_listing() {
        let (place, directory) = directory(&[("a.xml", VNC)]);
        let mut shelf = Arc::clone(&directory.shelf).lock_owned().await;
        shelf.refresh();
        shelf.files.clear();
        // The kernel then says so of the directory itself.
        let mode = fs::metadata(place.path()).unwrap().permissions();
        fs::set_permissions(place.path(), mode).unwrap();

        shelf.refresh();

        assert_eq!(names(&shelf.pick(&Wanted::All)), ["web-1"]);
        assert!(shelf.notices.is_ok());
    }

    #[tokio::test]
    async fn without_a_watch_the_directory_is_listed_at_every_look_up() {
        let (place, directory) = directory(&[("a.xml", VNC)]);
        let mut shelf = Arc::clone(&directory.shelf).lock_owned().await;
        shelf.list();
        shelf.notices = Err("a limit is reached".to_owned());
        fs::write(place.path().join("b.xml"), OFF).unwrap();

        shelf.refresh();

        assert_eq!(names(&shelf.pick(&Wanted::All)), ["web-1", "off-1"]);
    }

    #[test]
    fn a_stamp_counts_only_once_the_file_has_settled() {
        let (place, _directory) = directory(&[("a.xml", VNC)]);
        let file = fs::metadata(place.path().join("a.xml")).unwrap();
        let settled = Stamp {
            changed: (1_000_000_000, 0),
            ..Stamp::of(&file)
        };

        assert_eq!(Stamp::of(&file).if_settled(), None, "written just now");
        assert!(settled.if_settled().is_some());
    }

    #[tokio::test]
    async fn a_settled_file_is_not_parsed_again_until_it_changes() {
        let (place, directory) = directory(&[("a.xml", VNC)]);
        let a = place.path().join("a.xml");
        let known = Known {
            stamp: Some(Stamp::of(&fs::metadata(&a).unwrap())),
            content: Content::Foreign,
        };
        let mut shelf = Arc::clone(&directory.shelf).lock_owned().await;
        shelf.files.insert("a.xml".into(), known);

        shelf.refresh();
        assert_eq!(shelf.pick(&Wanted::All), Survey::default());
        fs::write(&a, VNC.replace("5901", "15901")).unwrap();
        shelf.refresh();
        assert_eq!(names(&shelf.pick(&Wanted::All)), ["web-1"]);
    }

    #[tokio::test]
    async fn a_reading_answers_those_who_came_before_it_began_and_nobody_after() {
        let (place, directory) = directory(&[]);
        let mut shelf = Arc::clone(&directory.shelf).lock_owned().await;
        let arrivals = AtomicU64::new(2);
        shelf.refresh_for(0, &arrivals);
        fs::write(place.path().join("a.xml"), VNC).unwrap();

        shelf.refresh_for(1, &arrivals);
        assert_eq!(shelf.pick(&Wanted::All), Survey::default());
        shelf.refresh_for(2, &arrivals);
        assert_eq!(names(&shelf.pick(&Wanted::All)), ["web-1"]);
    }

    #[tokio::test]
    async fn a_directory_that_may_be_missing_is_empty_until_it_appears() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("qemu");
        let host: Host = "127.0.0.1".parse().unwrap();
        let required = Directory::new(path.clone(), host.clone());
        let directory = Directory::if_present(path.clone(), host);
        assert_eq!(required.survey().await.faults.len(), 1);
        assert_eq!(directory.survey().await, Survey::default());

        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.xml"), VNC).unwrap();

        assert_eq!(names(&directory.survey().await), ["web-1"]);
    }

    #[tokio::test]
    async fn only_the_one_asked_for_is_found() {
        let (_place, directory) = directory(&[("a.xml", VNC), ("b.xml", OFF)]);
        let find = async |text: &str| directory.find(&text.into()).await;

        assert_eq!(names(&find("off-1").await), ["off-1"]);
        assert_eq!(names(&find("Web shop").await), ["web-1"]);
        let by_id = find("3f0c7a52-6d0e-4f6e-9a55-0c1de7a00001").await;
        assert_eq!(names(&by_id), ["web-1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_behind_one_that_hangs_ends_at_its_deadline() {
        let (_place, directory) = directory(&[]);
        let _hanging = Arc::clone(&directory.shelf).lock_owned().await;

        let survey = directory.survey().await;

        assert_eq!(survey.faults[0].why, "did not answer within 4 s");
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_is_a_fault() {
        let (place, directory) = directory(&[("a.xml", "")]);
        let file = File::options().write(true).open(place.path().join("a.xml"));
        file.unwrap().set_len(MAX_XML_BYTES + 1).unwrap();

        let survey = directory.survey().await;

        assert_eq!(survey.faults[0].why, "a.xml is larger than 16 MiB");
    }
}
