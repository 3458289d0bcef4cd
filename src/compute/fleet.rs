//! Many hosts, each with a compute role of its own, as the sources of one.
//!
//! Which hosts there are is listed, or read from a directory with a file for each, which is looked
//! at every second: a host is added or taken away without a restart. Started by the assembly where
//! compute runs elsewhere; the role that it makes is asked like any.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::Compute;
use super::driver::{BoxFuture, Driver, Elsewhere, Fault, Host, Survey, fault};
use crate::drain::Watch;
use crate::model::Address;
use crate::rpc::Links;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The longest file that says where a host is, in bytes.
const LONGEST: u64 = 64 << 10;

/// How one host does, for those who count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostNews {
    /// It can be reached.
    Up,
    /// It cannot.
    Down,
    /// It is no host of ours any more.
    Gone,
    /// It answered a question.
    Answered(Duration),
}

/// Is told how hosts do.
#[derive(Clone)]
pub struct Told(Arc<Listener>);

type Listener = dyn Fn(&str, HostNews) + Send + Sync;

impl Told {
    /// Calls `listener` with the host's name, often and from anywhere: it must not wait.
    pub fn new(listener: impl Fn(&str, HostNews) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(super) fn tell(&self, host: &str, news: HostNews) {
        (self.0)(host, news);
    }
}

impl Default for Told {
    /// Nobody is.
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

/// The hosts, and how they are reached.
#[derive(Debug)]
pub struct Fleet {
    /// The ways there.
    pub links: Links,
    /// Those that are listed.
    pub listed: Vec<Address>,
    /// Where the others are written down.
    pub directory: Option<PathBuf>,
    /// Whether their consoles may come through them.
    pub tunnels: bool,
    /// Is told how they do.
    pub told: Told,
}

/// A host that a file names, or why it names none.
type Named = Result<Address, String>;

/// One source of the role: what it was made of, and what it became.
#[derive(Debug)]
struct Member {
    named: Named,
    driver: Arc<dyn Driver>,
}

/// The hosts of a directory.
#[derive(Debug, Default)]
struct Page {
    stamps: BTreeMap<String, Stamp>,
    hosts: BTreeMap<String, Named>,
}

/// Changes whenever a file does.
type Stamp = (u64, u64, i64, i64, i64);

impl Fleet {
    /// Begins to hear of all hosts. Reads the directory, and blocks for that. Ends with `watch`.
    pub fn start(mut self, watch: &Watch) -> Compute {
        let compute = Compute::new(Vec::new());
        let listed = std::mem::take(&mut self.listed);
        let listed: Vec<_> = listed
            .into_iter()
            .map(|address| self.member(&address.to_string(), &Ok(address)))
            .collect();
        let mut roll = Roll {
            compute: compute.clone(),
            watch: watch.clone(),
            listed,
            members: BTreeMap::new(),
            fleet: self,
        };
        roll.listed.iter().for_each(|member| roll.begin(member));
        let page = roll
            .fleet
            .directory
            .as_deref()
            .map(|path| read(path, Page::default()));
        let page = roll.take_in(page);
        if let Some((path, page)) = roll.fleet.directory.clone().zip(page) {
            let closing = watch.clone();
            watch.spawn_service(async move {
                tokio::select! {
                    () = roll.keep(path, page) => {}
                    () = closing.closing() => {}
                }
            });
        }
        compute
    }

    fn member(&mut self, name: &str, named: &Named) -> Member {
        let driver: Arc<dyn Driver> = match named {
            Ok(address) => {
                let host = Host {
                    name: name.to_owned(),
                    compute: self.links.client(std::slice::from_ref(address)),
                    way: self.tunnels.then(|| self.links.way(address)),
                };
                Arc::new(Elsewhere::new(host, self.told.clone()))
            }
            Err(why) => Arc::new(Unreadable(fault(name, why))),
        };
        Member {
            named: named.clone(),
            driver,
        }
    }
}

/// Who belongs to the fleet now.
struct Roll {
    fleet: Fleet,
    compute: Compute,
    watch: Watch,
    listed: Vec<Member>,
    members: BTreeMap<String, Member>,
}

impl Roll {
    async fn keep(mut self, path: PathBuf, mut page: Page) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let _now = looks.tick().await;
            let path = path.clone();
            let looked = tokio::task::spawn_blocking(move || read(&path, page)).await;
            let Some(read) = self.take_in(looked.ok()) else {
                return;
            };
            page = read;
        }
    }

    /// Hosts that stayed as they were keep what is known of them.
    fn take_in(&mut self, page: Option<Page>) -> Option<Page> {
        let Some(page) = page else {
            self.publish();
            return None;
        };
        let mut before = std::mem::take(&mut self.members);
        let mut changed = false;
        for (name, named) in &page.hosts {
            let known = before.remove(name).filter(|member| member.named == *named);
            let member = known.unwrap_or_else(|| {
                changed = true;
                let member = self.fleet.member(name, named);
                self.begin(&member);
                member
            });
            let _none = self.members.insert(name.clone(), member);
        }
        if changed || !before.is_empty() {
            tracing::info!(hosts = self.members.len(), "compute hosts");
        }
        self.publish();
        Some(page)
    }

    fn begin(&self, member: &Member) {
        member.driver.start(&self.watch, &self.compute.changes);
    }

    fn publish(&self) {
        let members = self.listed.iter().chain(self.members.values());
        let drivers = members.map(|member| Arc::clone(&member.driver));
        self.compute.drivers.exchange(drivers.collect());
    }
}

/// What a file should say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    address: Address,
}

/// Reads what changed since `before`. A directory that cannot be read leaves all as it was, and
/// says so. Blocks.
fn read(path: &Path, mut before: Page) -> Page {
    let place = path.display().to_string();
    let files = match names(path) {
        Ok(files) => files,
        Err(why) => {
            let _none = before.hosts.insert(place, Err(why.to_string()));
            return before;
        }
    };
    let mut page = Page::default();
    for name in files {
        let file = path.join(&name);
        let Ok(stamp) = fs::metadata(&file).map(|file| stamp_of(&file)) else {
            continue;
        };
        let host = name.trim_end_matches(".toml").to_owned();
        let known = before.hosts.remove(&host);
        let known = known.filter(|_| before.stamps.get(&host) == Some(&stamp));
        let named = known.unwrap_or_else(|| address_in(&file));
        let _none = page.hosts.insert(host.clone(), named);
        let _none = page.stamps.insert(host, stamp);
    }
    page
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str);
        if let (Some(name), Some("toml")) = (name, path.extension().and_then(OsStr::to_str)) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn stamp_of(file: &Metadata) -> Stamp {
    let times = (file.mtime(), file.mtime_nsec(), file.ctime_nsec());
    (file.ino(), file.len(), times.0, times.1, times.2)
}

fn address_in(file: &Path) -> Named {
    let read = || -> io::Result<String> {
        if fs::metadata(file)?.len() > LONGEST {
            return Err(io::Error::other("it is too long"));
        }
        fs::read_to_string(file)
    };
    let bad = |why: &dyn fmt::Display| format!("{}: {why}", file.display());
    let text = read().map_err(|why| bad(&why))?;
    let said: Result<File, _> = toml::from_str(&text);
    match said {
        Ok(File {
            address: Address::Hypervisor,
        }) => Err(bad(&"no role can be called there")),
        Ok(File { address }) => Ok(address),
        Err(why) => Err(bad(&why.message())),
    }
}

/// A host of which nobody knows where it is: what is asked for may be there.
#[derive(Debug)]
struct Unreadable(Fault);

impl Driver for Unreadable {
    fn source(&self) -> &str {
        &self.0.source
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(async { self.0.clone().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(page: &Page) -> Vec<(&str, Result<String, String>)> {
        let hosts = page.hosts.iter();
        hosts
            .map(|(name, named)| (name.as_str(), named.clone().map(|it| it.to_string())))
            .collect()
    }

    #[test]
    fn a_file_names_a_host_and_one_that_says_nothing_is_no_silence() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
        write("kvm-1.toml", "address = 'kvm-1:6090'");
        write("kvm-2.toml", "adress = 'kvm-2:6090'");
        write("notes.txt", "");

        let page = read(place.path(), Page::default());

        let [(first, one), (second, two)] = &hosts(&page)[..] else {
            panic!("{page:?}")
        };
        assert_eq!((*first, one), ("kvm-1", &Ok("kvm-1:6090".to_owned())));
        assert_eq!(*second, "kvm-2");
        let why = two.clone().unwrap_err();
        assert!(why.contains("unknown field `adress`"), "{why}");
    }

    #[test]
    fn files_that_change_come_and_go_count_at_the_next_look() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("a.toml"), "address = 'a:1'").unwrap();
        fs::write(at("b.toml"), "address = 'b:1'").unwrap();
        let page = read(place.path(), Page::default());

        fs::write(at("a.toml"), "address = 'a:22'").unwrap();
        fs::remove_file(at("b.toml")).unwrap();
        fs::write(at("c.toml"), "address = 'unix:/c'").unwrap();
        let page = read(place.path(), page);

        let expected = [
            ("a", Ok("a:22".to_owned())),
            ("c", Ok("unix:/c".to_owned())),
        ];
        assert_eq!(hosts(&page), expected);
    }

    #[test]
    fn a_directory_that_cannot_be_read_takes_no_host_away() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hosts.d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.toml"), "address = 'a:1'").unwrap();
        let page = read(&path, Page::default());
        fs::rename(&path, place.path().join("away")).unwrap();

        let page = read(&path, page);

        assert_eq!(page.hosts.len(), 2, "{page:?}");
        assert_eq!(page.hosts["a"], Ok("a:1".parse().unwrap()));
        fs::rename(place.path().join("away"), &path).unwrap();
        assert_eq!(read(&path, page).hosts.len(), 1);
    }
}
