//! What every store has to do, whatever it keeps its grants in.

use std::sync::{Arc, LazyLock};

use super::*;
use crate::auth::tests::{browser, grant, instance_id};
use crate::model::Token;

/// A store with room for two, and what has to live as long as it.
struct Subject {
    store: Arc<dyn Store>,
    _directory: Option<tempfile::TempDir>,
}

fn subjects() -> Vec<Subject> {
    let directory = tempfile::tempdir().unwrap();
    let file = File::open(&directory.path().join("tokens.redb"), 2).unwrap();
    vec![
        Subject {
            store: Arc::new(Memory::new(2)),
            _directory: None,
        },
        Subject {
            store: Arc::new(file),
            _directory: Some(directory),
        },
    ]
}

fn attempt(name: &str) -> Attempt {
    Attempt {
        browser: browser(name),
        lives: false,
        window: Duration::from_secs(30),
    }
}

/// When the tests began: a second that passes meanwhile changes nothing.
static BEGAN: LazyLock<UnixTime> = LazyLock::new(UnixTime::now);

/// Some time from then, so that no store's own clock gets in the way.
fn soon(seconds: u64) -> UnixTime {
    BEGAN.plus(Duration::from_secs(3600 + seconds))
}

#[tokio::test]
async fn a_grant_is_valid_strictly_before_its_last_second() {
    for Subject { store, .. } in subjects() {
        let hash = Token::generate().hash();
        let last = soon(100);
        let kept = store.insert(hash, grant(1, last.0), soon(0));
        kept.await.unwrap();

        let before = UnixTime(last.0 - 1);
        assert!(store.get(hash, before).await.unwrap().is_some());
        assert!(store.find(hash.id(), before).await.unwrap().is_some());
        assert!(store.get(hash, last).await.unwrap().is_none());
        assert!(store.find(hash.id(), last).await.unwrap().is_none());
        assert!(store.list(None, last).await.unwrap().is_empty());
        assert!(store.remove(hash.id(), last).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_removed_grant_is_gone_for_good() {
    for Subject { store, .. } in subjects() {
        let hash = Token::generate().hash();
        let kept = store.insert(hash, grant(1, soon(100).0), soon(0));
        kept.await.unwrap();

        let removed = store.remove(hash.id(), soon(0)).await.unwrap();

        assert_eq!(removed.map(|entry| entry.id), Some(hash.id()));
        assert!(store.get(hash, soon(0)).await.unwrap().is_none());
        assert!(store.remove(hash.id(), soon(0)).await.unwrap().is_none());
        assert_eq!(
            store.claim(hash.id(), attempt("a"), soon(0)).await,
            Ok(None)
        );
    }
}

#[tokio::test]
async fn sweeping_forgets_the_dead_and_nothing_else() {
    for Subject { store, .. } in subjects() {
        let (dead, live) = (Token::generate().hash(), Token::generate().hash());
        for (hash, expires) in [(dead, soon(100)), (live, soon(101))] {
            let kept = store.insert(hash, grant(1, expires.0), soon(0));
            kept.await.unwrap();
        }

        store.sweep(soon(100)).await.unwrap();

        assert!(store.get(live, soon(100)).await.unwrap().is_some());
        let listed = store.list(Some(instance_id(1)), soon(100)).await.unwrap();
        assert_eq!(listed.len(), 1);
    }
}

#[tokio::test]
async fn lists_are_by_instance_and_the_next_to_expire_comes_first() {
    for Subject { store, .. } in subjects() {
        let (late, early) = (Token::generate().hash(), Token::generate().hash());
        for (hash, instance, expires) in [(late, 1, soon(200)), (early, 2, soon(100))] {
            let kept = store.insert(hash, grant(instance, expires.0), soon(0));
            kept.await.unwrap();
        }

        let all = store.list(None, soon(0)).await.unwrap();
        let one = store.list(Some(instance_id(1)), soon(0)).await.unwrap();
        let none = store.list(Some(instance_id(3)), soon(0)).await.unwrap();

        let ids = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.id);
        assert_eq!(ids(all).collect::<Vec<_>>(), [early.id(), late.id()]);
        assert_eq!(ids(one).collect::<Vec<_>>(), [late.id()]);
        assert_eq!(none, []);
    }
}

#[tokio::test]
async fn a_claimed_token_is_one_browsers_until_its_session_never_came_about() {
    for Subject { store, .. } in subjects() {
        let hash = Token::generate().hash();
        let id = hash.id();
        let kept = store.insert(hash, grant(1, soon(100).0), soon(0));
        kept.await.unwrap();

        let first = store.claim(id, attempt("a"), soon(0)).await;
        let other = store.claim(id, attempt("b"), soon(0)).await;
        store.leave(id, false, soon(1)).await.unwrap();
        let next = store.claim(id, attempt("b"), soon(2)).await;
        store.leave(id, true, soon(3)).await.unwrap();
        let back = store.claim(id, attempt("b"), soon(33)).await;
        store.leave(id, true, soon(40)).await.unwrap();
        let late = store.claim(id, attempt("b"), soon(71)).await;

        assert_eq!((first, other), (Ok(Some(true)), Ok(Some(false))));
        assert_eq!((next, back), (Ok(Some(true)), Ok(Some(true))));
        assert_eq!(late, Ok(Some(false)));
    }
}

#[tokio::test]
async fn a_store_that_is_full_makes_room_by_burying_the_dead() {
    for Subject { store, .. } in subjects() {
        let insert = |expires: u64, now: UnixTime| {
            store.insert(Token::generate().hash(), grant(1, expires), now)
        };
        insert(soon(100).0, soon(0)).await.unwrap();
        insert(soon(200).0, soon(0)).await.unwrap();

        let full = insert(soon(300).0, soon(99)).await;
        let again = insert(soon(300).0, soon(100)).await;

        assert_eq!((full, again), (Err(AuthError::Full(2)), Ok(())));
    }
}

#[tokio::test]
async fn a_file_gives_back_what_was_kept_and_not_what_was_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/tokens.redb");
    let [kept, removed, dead, used] = [(); 4].map(|()| Token::generate().hash());
    let now = UnixTime::now();
    let later = now.plus(Duration::from_mins(10));
    let file = File::open(&path, 10).unwrap();
    for (hash, expires) in [(kept, later), (removed, later), (dead, now), (used, later)] {
        let insert = file.insert(hash, grant(1, expires.0), UnixTime(0));
        insert.await.unwrap();
    }
    file.remove(removed.id(), now).await.unwrap();
    file.claim(used.id(), attempt("a"), now).await.unwrap();

    drop(file);
    let file = reopened(&path);

    assert!(file.get(kept, now).await.unwrap().is_some());
    assert!(file.get(removed, now).await.unwrap().is_none());
    assert_eq!(file.list(None, UnixTime(0)).await.unwrap().len(), 2);
    let other = file.claim(used.id(), attempt("b"), now).await;
    assert_eq!(other, Ok(Some(false)));
    let same = file.claim(used.id(), attempt("a"), now).await;
    assert_eq!(same, Ok(Some(true)));
}

#[tokio::test]
async fn a_file_is_one_process_own_and_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.redb");
    let _file = File::open(&path, 10).unwrap();

    let second = File::open(&path, 10).unwrap_err().to_string();

    assert!(second.contains("tokens.redb"), "{second}");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_shows_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.redb");
    let token = Token::generate();
    let file = File::open(&path, 10).unwrap();
    let insert = file.insert(token.hash(), grant(1, soon(1).0), soon(0));
    insert.await.unwrap();

    let bytes = std::fs::read(&path).unwrap();

    let shows = |text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(
        shows(&token.hash().to_string()),
        "the file is read as it is"
    );
    assert!(!shows(token.reveal()));
}

/// The file, once the thread of the store that had it has let go of it.
fn reopened(path: &std::path::Path) -> File {
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match File::open(path, 10) {
            Ok(file) => return file,
            Err(error) => assert!(std::time::Instant::now() < patience, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_a_token_opens_with_can_be_changed_while_it_lives() {
    for Subject { store, .. } in subjects() {
        let hash = Token::generate().hash();
        let kept = store.insert(hash, grant(1, soon(100).0), soon(0));
        kept.await.unwrap();

        let id = hash.id();
        let changed = store.set_rights(id, Rights::VIEW, soon(0));
        changed.await.unwrap();
        let nobody = Token::generate().hash().id();
        store
            .set_rights(nobody, Rights::VIEW, soon(0))
            .await
            .unwrap();

        let grant = store.get(hash, soon(0)).await.unwrap().unwrap();
        assert_eq!(grant.rights, Rights::VIEW);
        assert_eq!(store.list(None, soon(0)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn changed_rights_outlive_the_process_and_a_revoked_token_stays_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.redb");
    let (kept, revoked) = (Token::generate().hash(), Token::generate().hash());
    {
        let store = File::open(&path, 2).unwrap();
        for hash in [kept, revoked] {
            let inserted = store.insert(hash, grant(1, soon(100).0), soon(0));
            inserted.await.unwrap();
        }
        store
            .set_rights(kept.id(), Rights::VIEW, soon(0))
            .await
            .unwrap();
        store.remove(revoked.id(), soon(0)).await.unwrap();
        store
            .set_rights(revoked.id(), Rights::VIEW, soon(0))
            .await
            .unwrap();
    }

    let store = reopened(&path);

    let found = store.get(kept, soon(0)).await.unwrap().unwrap();
    assert_eq!(found.rights, Rights::VIEW);
    assert!(store.get(revoked, soon(0)).await.unwrap().is_none());
}
