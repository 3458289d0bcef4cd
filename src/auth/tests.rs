use super::*;
use crate::drain::Drain;
use crate::model::Address;
use crate::rpc;

fn new_grant(instance: u8, ttl: u64) -> NewGrant {
    NewGrant {
        instance: instance_id(instance),
        instance_name: format!("vm-{instance}"),
        console_type: ConsoleType::Novnc,
        target: Target::from("127.0.0.1:5900".parse::<Address>().unwrap()),
        rights: Rights::VIEW,
        base: "http://127.0.0.1:6080/vnc.html".parse().unwrap(),
        project: None,
        caller: "test".to_owned(),
        ttl: Duration::from_secs(ttl),
    }
}

fn instance_id(number: u8) -> InstanceId {
    InstanceId(uuid::Uuid::from_bytes([number; 16]))
}

fn grant(instance: u8, expires: u64) -> Grant {
    let new = new_grant(instance, 0);
    Grant {
        instance: new.instance,
        instance_name: new.instance_name,
        console_type: new.console_type,
        target: new.target,
        binding: Binding::Instance,
        rights: new.rights,
        base: new.base,
        project: new.project,
        caller: new.caller,
        issued: UnixTime(0),
        expires: UnixTime(expires),
    }
}

fn near(max_tokens: usize) -> (Client<Auth>, Drain) {
    let drain = Drain::default();
    let watch = drain.watch();
    (
        Client::Near(rpc::serve(Auth::in_memory(max_tokens, &watch), &watch)),
        drain,
    )
}

#[tokio::test]
async fn a_token_can_be_redeemed_again_and_again() {
    let (auth, _drain) = near(10);

    let (token, grant) = auth.authorize(new_grant(1, 600)).await.unwrap();

    assert_eq!(auth.redeem(&token).await, Ok(grant.clone()));
    assert_eq!(auth.redeem(&token).await, Ok(grant.clone()));
    assert_eq!(grant.expires, grant.issued.plus(Duration::from_mins(10)));
}

#[tokio::test]
async fn a_revoked_token_and_a_made_up_one_are_the_same_unknown() {
    let (auth, _drain) = near(10);
    let (token, _) = auth.authorize(new_grant(1, 600)).await.unwrap();
    let id = token.hash().id();

    let revoked = auth.revoke(id.clone()).await.unwrap();

    assert_eq!(revoked.id, id);
    assert_eq!(auth.redeem(&token).await, Err(AuthError::Unknown));
    assert_eq!(
        auth.redeem(&Token::generate()).await,
        Err(AuthError::Unknown)
    );
    assert_eq!(auth.revoke(id).await, Err(AuthError::Unknown));
}

#[tokio::test]
async fn a_token_of_no_seconds_is_dead_on_arrival() {
    let (auth, _drain) = near(10);

    let (token, _) = auth.authorize(new_grant(1, 0)).await.unwrap();

    assert_eq!(auth.redeem(&token).await, Err(AuthError::Unknown));
}

#[tokio::test]
async fn lists_are_by_instance_or_whole() {
    let (auth, _drain) = near(10);
    for instance in [1, 1, 2] {
        auth.authorize(new_grant(instance, 600)).await.unwrap();
    }

    assert_eq!(auth.list(None).await.unwrap().len(), 3);
    assert_eq!(auth.list(Some(instance_id(1))).await.unwrap().len(), 2);
    assert_eq!(auth.list(Some(instance_id(3))).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_full_store_refuses_until_a_token_goes() {
    let (auth, _drain) = near(1);
    let (token, _) = auth.authorize(new_grant(1, 600)).await.unwrap();

    let refused = auth.authorize(new_grant(1, 600)).await.unwrap_err();
    auth.revoke(token.hash().id()).await.unwrap();

    assert_eq!(refused, AuthError::Full(1));
    assert!(auth.authorize(new_grant(1, 600)).await.is_ok());
}

#[test]
fn a_grant_is_valid_strictly_before_its_last_second() {
    let store = Memory::new(10);
    let hash = Token::generate().hash();
    store
        .insert(hash.clone(), grant(1, 100), UnixTime(0))
        .unwrap();

    assert!(store.get(&hash, UnixTime(99)).is_some());
    assert!(store.get(&hash, UnixTime(100)).is_none());
    assert!(store.find(&hash.id(), UnixTime(100)).is_none());
    assert!(store.list(None, UnixTime(100)).is_empty());
}

#[test]
fn sweeping_forgets_the_dead_and_nothing_else() {
    let store = Memory::new(10);
    let (dead, live) = (Token::generate().hash(), Token::generate().hash());
    store
        .insert(dead.clone(), grant(1, 100), UnixTime(0))
        .unwrap();
    store
        .insert(live.clone(), grant(1, 101), UnixTime(0))
        .unwrap();

    store.sweep(UnixTime(100));

    assert!(store.get(&dead, UnixTime(0)).is_none());
    assert!(store.get(&live, UnixTime(0)).is_some());
    assert_eq!(store.list(Some(instance_id(1)), UnixTime(0)).len(), 1);
}

#[test]
fn dead_tokens_do_not_fill_the_store() {
    let store = Memory::new(1);
    store
        .insert(Token::generate().hash(), grant(1, 100), UnixTime(0))
        .unwrap();

    assert!(
        store
            .insert(Token::generate().hash(), grant(1, 200), UnixTime(100))
            .is_ok()
    );
}

#[test]
fn every_request_and_reply_survives_the_wire() {
    let entry = Entry {
        id: Token::generate().hash().id(),
        grant: grant(1, 5),
    };
    let requests = [
        Request::Authorize(Box::new(new_grant(1, 5))),
        Request::Redeem(Token::generate()),
        Request::List(Some(instance_id(1))),
        Request::Show(entry.id.clone()),
        Request::Revoke(entry.id.clone()),
        Request::Ready,
    ];
    let replies = [
        Reply::Authorized(Token::generate(), grant(1, 5)),
        Reply::Redeemed(grant(1, 5)),
        Reply::Listed(vec![entry.clone()]),
        Reply::One(entry),
        Reply::Ready,
    ];

    for request in requests {
        let wire = serde_json::to_value(&request).unwrap();
        let back: Request = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(serde_json::to_value(back).unwrap(), wire);
    }
    for reply in replies {
        let wire = serde_json::to_value(&reply).unwrap();
        let back: Reply = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(serde_json::to_value(back).unwrap(), wire);
    }
}
