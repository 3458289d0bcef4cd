use std::fs;
use std::path::Path;

use super::*;

fn source(path: &Path, most: usize) -> TokenFile {
    TokenFile::new(TokenFileSettings {
        path: path.to_owned(),
        most,
        console_type: ConsoleType::Serial,
        base: "ws://127.0.0.1:6080/".parse().unwrap(),
        ttl: Duration::from_mins(10),
    })
}

async fn leads(source: &TokenFile, token: &str) -> Result<String, AuthError> {
    let token = token.parse().unwrap();
    let grant = source.redeem(&token, UnixTime(100)).await?;
    Ok(grant.target.to_string())
}

fn refused(outcome: Result<String, AuthError>) -> String {
    match outcome {
        Err(AuthError::Source(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_line_is_a_grant_of_its_target_until_it_is_taken_out() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    fs::write(&file, "a: h:1\nb: unix_socket:/run/b\n").unwrap();
    let source = source(&file, 10);

    let grant = source
        .redeem(&"a".parse().unwrap(), UnixTime(100))
        .await
        .unwrap();
    let unix = leads(&source, "b").await;
    fs::write(&file, "b: h:2\n").unwrap();
    let (gone, moved) = (leads(&source, "a").await, leads(&source, "b").await);

    assert_eq!(&*grant.instance_name, "h:1");
    assert_eq!(grant.console_type, ConsoleType::Serial);
    assert_eq!(grant.binding, Binding::Target);
    assert_eq!(grant.expires, UnixTime(700));
    assert_eq!(unix.unwrap(), "unix:/run/b");
    assert_eq!(gone, Err(AuthError::Unknown));
    assert_eq!(moved.unwrap(), "h:2");
}

#[tokio::test]
async fn tokens_of_one_address_are_of_one_instance() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    fs::write(&file, "a: h:1\nb: h:1\nc: h:2\n").unwrap();
    let source = source(&file, 10);

    let mut instances = Vec::new();
    for token in ["a", "b", "c"] {
        let token = token.parse().unwrap();
        instances.push(source.redeem(&token, UnixTime(0)).await.unwrap().instance);
    }

    assert_eq!(instances[0], instances[1]);
    assert_ne!(instances[0], instances[2]);
}

#[tokio::test]
async fn of_a_directory_every_plain_file_counts_and_the_last_name_wins() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    write("1", "a: h:1\nx: h:11\n");
    write("2", "b: h:2\nx: h:12\n");
    write(".2.swp", "hidden: h:3\n");
    fs::create_dir(place.path().join("3")).unwrap();
    let source = source(place.path(), 10);

    let found = [leads(&source, "a").await, leads(&source, "x").await];
    let hidden = leads(&source, "hidden").await;
    fs::remove_file(place.path().join("2")).unwrap();
    let left = [leads(&source, "b").await, leads(&source, "x").await];

    assert_eq!(found, [Ok("h:1".to_owned()), Ok("h:12".to_owned())]);
    assert_eq!(hidden, Err(AuthError::Unknown));
    assert_eq!(left, [Err(AuthError::Unknown), Ok("h:11".to_owned())]);
}

#[tokio::test]
async fn a_broken_line_takes_no_other_with_it() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    fs::write(&file, b"a: h:1\nnonsense\n\xff\xfe\nb: h:2").unwrap();
    let source = source(&file, 10);

    assert_eq!(leads(&source, "a").await.unwrap(), "h:1");
    assert_eq!(leads(&source, "b").await.unwrap(), "h:2");
    assert_eq!(source.ready().await, Ok(()));
}

#[tokio::test]
async fn what_cannot_be_read_makes_no_token_unknown() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    let source = source(&file, 10);

    let missing = refused(leads(&source, "a").await);
    let unready = source.ready().await.unwrap_err();
    fs::write(&file, "a: h:1\n").unwrap();
    let back = leads(&source, "a").await;

    assert!(missing.starts_with(file.to_str().unwrap()), "{missing}");
    assert_eq!(unready, AuthError::Source(missing));
    assert_eq!(back.unwrap(), "h:1");
}

#[tokio::test]
async fn what_is_too_much_is_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    fs::write(&file, "a: h:1\nb: h:2\nc: h:3\n").unwrap();

    let many = refused(leads(&source(&file, 2), "a").await);
    fs::write(&file, vec![b'\n'; (16 << 20) + 1]).unwrap();
    let large = refused(leads(&source(&file, 2), "a").await);
    let neither = refused(leads(&source(Path::new("/dev/null"), 2), "a").await);

    assert!(many.contains("auth.max_tokens"), "{many}");
    assert!(large.contains("larger than 16 MiB"), "{large}");
    assert!(neither.contains("neither a file nor"), "{neither}");
}
