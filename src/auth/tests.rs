use super::*;
use crate::drain::Drain;
use crate::model::{Address, Binding, Browser, SecondViewer, UnixTime, Way};
use crate::rpc::{self, Client};

pub(super) fn new_grant(instance: u8, ttl: u64) -> NewGrant {
    NewGrant {
        instance: instance_id(instance),
        instance_name: format!("vm-{instance}").into(),
        console_type: ConsoleType::Novnc,
        target: Target::from("127.0.0.1:5900".parse::<Address>().unwrap()),
        rights: Rights::VIEW,
        base: "http://127.0.0.1:6080/vnc.html".parse().unwrap(),
        project: Some("p".into()),
        caller: "test".into(),
        terms: Terms::default(),
        ttl: Duration::from_secs(ttl),
    }
}

pub(super) fn instance_id(number: u8) -> InstanceId {
    InstanceId(uuid::Uuid::from_bytes([number; 16]))
}

pub(super) fn grant(instance: u8, expires: u64) -> Arc<Grant> {
    let new = new_grant(instance, 0);
    Arc::new(Grant {
        instance: new.instance,
        instance_name: new.instance_name,
        console_type: new.console_type,
        target: new.target,
        binding: Binding::Instance,
        rights: new.rights,
        base: new.base,
        project: new.project,
        caller: new.caller,
        terms: new.terms,
        issued: UnixTime(0),
        expires: UnixTime(expires),
    })
}

pub(super) fn browser(name: &str) -> Browser {
    Browser::new(None, name.as_bytes())
}

/// A session that `token` opens in the browser `name`.
pub(super) fn record(token: &Token, instance: u8, terms: Terms, name: &str) -> SessionRecord {
    SessionRecord {
        id: SessionId::generate(),
        token: token.hash().id(),
        instance: instance_id(instance),
        instance_name: format!("vm-{instance}").into(),
        console_type: ConsoleType::Novnc,
        project: None,
        host: "127.0.0.1:5900".into(),
        proxy: "gate-1".into(),
        caller: "test".into(),
        viewer: Some([127, 0, 0, 1].into()),
        browser: browser(name),
        rights: Rights::VIEW,
        started: UnixTime::now(),
        terms,
    }
}

fn settings() -> Settings {
    Settings {
        max_tokens: 10,
        limits: Limits::default(),
        reconnect_window: Duration::from_secs(30),
        terms: Terms::default(),
    }
}

fn near() -> (Client<Auth>, Drain) {
    near_with(settings())
}

fn near_with(settings: Settings) -> (Client<Auth>, Drain) {
    let drain = Drain::default();
    let watch = drain.watch();
    let auth = Auth::in_memory(settings, &watch);
    (Client::Near(rpc::serve(auth, &watch)), drain)
}

async fn issue(auth: &Client<Auth>, terms: Terms) -> Token {
    let new = NewGrant {
        terms,
        ..new_grant(1, 600)
    };
    auth.authorize(new).await.unwrap().0
}

#[tokio::test]
async fn a_token_can_be_redeemed_again_and_again() {
    let (auth, _drain) = near();

    let (token, grant) = auth.authorize(new_grant(1, 600)).await.unwrap();

    assert_eq!(auth.redeem(&token).await, Ok(grant.clone()));
    assert_eq!(auth.redeem(&token).await, Ok(grant.clone()));
    assert_eq!(grant.expires, grant.issued.plus(Duration::from_mins(10)));
}

#[tokio::test]
async fn a_revoked_token_and_a_made_up_one_are_the_same_unknown() {
    let (auth, _drain) = near();
    let (token, _) = auth.authorize(new_grant(1, 600)).await.unwrap();
    let id = token.hash().id();

    let revoked = auth.revoke(id).await.unwrap();

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
    let (auth, _drain) = near();

    let (token, _) = auth.authorize(new_grant(1, 0)).await.unwrap();

    assert_eq!(auth.redeem(&token).await, Err(AuthError::Unknown));
}

#[tokio::test]
async fn lists_are_by_instance_or_whole() {
    let (auth, _drain) = near();
    for instance in [1, 1, 2] {
        auth.authorize(new_grant(instance, 600)).await.unwrap();
    }

    assert_eq!(auth.list(None).await.unwrap().len(), 3);
    assert_eq!(auth.list(Some(instance_id(1))).await.unwrap().len(), 2);
    assert_eq!(auth.list(Some(instance_id(3))).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_full_store_refuses_until_a_token_goes() {
    let (auth, _drain) = near_with(Settings {
        max_tokens: 1,
        ..settings()
    });
    let (token, _) = auth.authorize(new_grant(1, 600)).await.unwrap();

    let refused = auth.authorize(new_grant(1, 600)).await.unwrap_err();
    auth.revoke(token.hash().id()).await.unwrap();

    assert_eq!(refused, AuthError::Full(1));
    assert!(auth.authorize(new_grant(1, 600)).await.is_ok());
}

#[tokio::test]
async fn a_session_is_listed_from_its_begin_to_its_end() {
    let (auth, _drain) = near();
    let token = issue(&auth, Terms::default()).await;
    let record = record(&token, 1, Terms::default(), "a");

    auth.begin(record.clone()).await.unwrap();
    let beat = Beat {
        session: record.id,
        up: 3,
        down: 5,
        last_input: UnixTime(7),
        way: Some(Way::Tunnel),
        rights: record.rights,
    };
    let pulse = auth.beat(vec![beat]).await.unwrap();
    let listed = auth.sessions(Some(instance_id(1))).await.unwrap();
    let elsewhere = auth.sessions(Some(instance_id(2))).await.unwrap();
    auth.end(record.id, true).await.unwrap();

    assert_eq!(pulse, Pulse::default());
    let record = record.into();
    assert_eq!(listed, [LiveSession { record, beat }]);
    assert_eq!(elsewhere, []);
    assert_eq!(auth.sessions(None).await.unwrap(), []);
    let unknown = auth.beat(vec![beat]).await.unwrap().unknown;
    assert_eq!(unknown, [beat.session]);
}

#[tokio::test]
async fn killing_a_session_and_revoking_its_token_are_heard_at_once_and_with_every_beat() {
    let (auth, _drain) = near();
    let token = issue(&auth, Terms::default()).await;
    let [first, second] = ["a", "b"].map(|name| record(&token, 1, Terms::default(), name));
    for record in [&first, &second] {
        auth.begin(record.clone()).await.unwrap();
    }
    let start = auth.orders(None).await.unwrap();

    auth.kill(first.id).await.unwrap();
    let killed = auth.orders(Some(start.cursor)).await.unwrap();
    auth.revoke(token.hash().id()).await.unwrap();
    let revoked = auth.orders(Some(killed.cursor)).await.unwrap();
    let beats = [&first, &second].map(Beat::first);
    let pulse = auth.beat(beats.to_vec()).await.unwrap();

    let order = |record: &SessionRecord, cause| Order::end(record.id, cause);
    let (one, two) = (
        order(&first, Cause::Operator),
        order(&second, Cause::Revoked),
    );
    assert_eq!(killed.items, [one]);
    assert!(revoked.items.contains(&two), "{revoked:?}");
    assert_eq!(pulse.orders, [one, two]);
    let nobody = SessionId::generate();
    assert_eq!(auth.kill(nobody).await, Err(AuthError::NoSession(nobody)));
}

#[tokio::test]
async fn other_rights_are_heard_at_once_and_with_every_beat_until_they_are_in_force() {
    let (auth, _drain) = near();
    let token = issue(&auth, Terms::default()).await;
    let record = SessionRecord {
        rights: Rights::CONTROL,
        ..record(&token, 1, Terms::default(), "a")
    };
    auth.begin(record.clone()).await.unwrap();
    let start = auth.orders(None).await.unwrap();
    let mut beat = Beat::first(&record);

    let changed = auth.set_rights(record.id, Rights::VIEW).await.unwrap();
    let heard = auth.orders(Some(start.cursor)).await.unwrap();
    let pulse = auth.beat(vec![beat]).await.unwrap();

    // A session that began with the console's clipboard keeps it; its token does not.
    let looking = Rights {
        clipboard_out: true,
        ..Rights::VIEW
    };
    let order = Order::rights(record.id, looking);
    assert_eq!(changed.record.rights, looking);
    assert_eq!(changed.beat.rights, Rights::CONTROL);
    assert_eq!((heard.items, pulse.orders), (vec![order], vec![order]));
    let grant = auth.redeem(&token).await.unwrap();
    assert_eq!(grant.rights, Rights::VIEW);
    beat.rights = looking;
    assert_eq!(auth.beat(vec![beat]).await.unwrap(), Pulse::default());
    let nobody = SessionId::generate();
    let unknown = auth.set_rights(nobody, Rights::VIEW).await;
    assert_eq!(unknown, Err(AuthError::NoSession(nobody)));
}

#[tokio::test]
async fn a_token_that_was_revoked_since_it_was_redeemed_begins_no_session() {
    let (auth, _drain) = near();
    let token = issue(&auth, Terms::default()).await;
    let record = record(&token, 1, Terms::default(), "a");
    auth.revoke(token.hash().id()).await.unwrap();

    assert_eq!(auth.begin(record).await, Err(AuthError::Unknown));
    assert_eq!(auth.sessions(None).await.unwrap(), []);
}

#[tokio::test]
async fn a_single_use_token_is_its_first_browsers_alone() {
    let (auth, _drain) = near();
    let terms = Terms {
        single_use: true,
        ..Terms::default()
    };
    let token = issue(&auth, terms).await;
    let record = |name| record(&token, 1, terms, name);
    let first = record("a");
    auth.begin(first.clone()).await.unwrap();

    let other = auth.begin(record("b")).await;
    let reload = record("a");
    auth.begin(reload.clone()).await.unwrap();
    let old = auth.beat(vec![Beat::first(&first)]).await.unwrap();
    for id in [first.id, reload.id] {
        auth.end(id, true).await.unwrap();
    }

    assert_eq!(other, Err(AuthError::Used));
    assert_eq!(old.orders.len(), 1, "a reload replaces its old session");
    assert_eq!(auth.begin(record("b")).await, Err(AuthError::Used));
    assert_eq!(auth.begin(record("a")).await, Ok(()));
}

#[tokio::test]
async fn a_single_use_token_whose_console_did_not_open_can_be_used_again() {
    let (auth, _drain) = near();
    let terms = Terms {
        single_use: true,
        ..Terms::default()
    };
    let token = issue(&auth, terms).await;
    let failed = record(&token, 1, terms, "a");
    auth.begin(failed.clone()).await.unwrap();

    auth.end(failed.id, false).await.unwrap();

    assert_eq!(auth.begin(record(&token, 1, terms, "b")).await, Ok(()));
}

#[tokio::test]
async fn a_second_viewer_is_let_in_turned_away_or_takes_over() {
    for (second_viewer, begun, orders) in [
        (SecondViewer::Allow, Ok(()), 0),
        (SecondViewer::Refuse, Err(AuthError::Occupied), 0),
        (SecondViewer::TakeOver, Ok(()), 1),
    ] {
        let (auth, _drain) = near();
        let token = issue(&auth, Terms::default()).await;
        let first = record(&token, 1, Terms::default(), "a");
        auth.begin(first.clone()).await.unwrap();
        let terms = Terms {
            second_viewer,
            ..Terms::default()
        };
        let other = issue(&auth, terms).await;

        let second = auth.begin(record(&other, 1, terms, "b")).await;
        let pulse = auth.beat(vec![Beat::first(&first)]).await.unwrap();

        assert_eq!(second, begun, "{second_viewer:?}");
        assert_eq!(pulse.orders.len(), orders, "{second_viewer:?}");
    }
}

#[tokio::test]
async fn every_limit_is_kept_and_makes_way_for_who_comes_back() {
    let one = Some(1);
    for (limits, reached) in [
        (
            Limits {
                all: one,
                ..Limits::default()
            },
            Reached::All,
        ),
        (
            Limits {
                instance: one,
                ..Limits::default()
            },
            Reached::Instance,
        ),
        (
            Limits {
                caller: one,
                ..Limits::default()
            },
            Reached::Caller,
        ),
        (
            Limits {
                address: one,
                ..Limits::default()
            },
            Reached::Address,
        ),
    ] {
        let (auth, _drain) = near_with(Settings {
            limits,
            ..settings()
        });
        let token = issue(&auth, Terms::default()).await;
        let record = |name| record(&token, 1, Terms::default(), name);
        auth.begin(record("a")).await.unwrap();

        let other = auth.begin(record("b")).await;
        let reload = auth.begin(record("a")).await;

        assert_eq!(other, Err(AuthError::Limit(reached)));
        assert_eq!(reload, Ok(()), "{reached:?}");
    }
}

#[tokio::test]
async fn an_auth_that_knows_nothing_is_told_again() {
    let (auth, _drain) = near();
    let token = Token::generate();
    let record = record(&token, 1, Terms::default(), "a");
    let live = LiveSession {
        beat: Beat::first(&record),
        record: record.into(),
    };

    auth.restore(vec![live.clone()]).await.unwrap();

    assert_eq!(auth.session(live.record.id).await, Ok(live));
}

#[test]
fn every_request_and_reply_survives_the_wire() {
    let entry = Entry {
        id: Token::generate().hash().id(),
        grant: grant(1, 5),
    };
    let record = record(&Token::generate(), 1, Terms::default(), "a");
    let live = LiveSession {
        beat: Beat::first(&record),
        record: record.clone().into(),
    };
    let order = Order::end(record.id, Cause::Operator);
    let pulse = Pulse {
        unknown: vec![record.id],
        orders: vec![order, Order::rights(record.id, Rights::VIEW)],
    };
    let requests = [
        Request::SetRights(record.id, Rights::VIEW),
        Request::Authorize(Box::new(new_grant(1, 5))),
        Request::Redeem(Token::generate()),
        Request::List(Some(instance_id(1))),
        Request::Show(entry.id),
        Request::Revoke(entry.id),
        Request::Ready,
        Request::Begin(record.clone().into()),
        Request::Beat(vec![live.beat]),
        Request::Restore(vec![live.clone()]),
        Request::End(record.id, true),
        Request::Orders(None),
        Request::Sessions(Some(instance_id(1))),
        Request::Session(record.id),
        Request::Kill(record.id),
    ];
    let replies = [
        Reply::Authorized(Token::generate(), grant(1, 5)),
        Reply::Redeemed(grant(1, 5)),
        Reply::Listed(vec![entry.clone()]),
        Reply::One(Box::new(entry)),
        Reply::Done,
        Reply::Pulse(pulse),
        Reply::Sessions(vec![live.clone()]),
        Reply::Session(Box::new(live)),
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
