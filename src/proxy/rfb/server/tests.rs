use super::*;

const CHALLENGE_BYTES: Challenge = [0x5a; CHALLENGE];

fn schemes(names: &[&str]) -> Schemes {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.try_into().unwrap()
}

/// Everything allowed, a CA, no password.
fn open_means() -> Means {
    Means {
        knows_servers: true,
        ..Means::default()
    }
}

fn with_password(means: Means) -> Means {
    Means {
        user: Some("ann".to_owned()),
        password: Some(Password::from("secret".to_owned())),
        ..means
    }
}

fn allowing(names: &[&str]) -> Means {
    Means {
        schemes: schemes(names),
        ..open_means()
    }
}

/// A server that says `script`, whoever it talks to: what it got, and how it went. `None` in the
/// place of bytes is where TLS begins.
struct Talk {
    negotiation: Negotiation,
    sent: Vec<u8>,
    end: Result<Next, Fault>,
}

fn talk(means: Means, script: &[u8]) -> Talk {
    let (mut negotiation, mut turn) = Negotiation::new(means);
    let (mut sent, mut rest) = (Vec::new(), script);
    let end = loop {
        sent.extend(&turn.send);
        let step = match turn.next {
            Next::Read(length) if rest.len() < length => break Ok(Next::Read(length)),
            Next::Read(length) => {
                let (piece, left) = rest.split_at(length);
                rest = left;
                negotiation.take(piece)
            }
            Next::StartTls => negotiation.secured(),
            ready @ Next::Ready(_) => {
                assert_eq!(rest, b"", "it stopped before the end of the script");
                break Ok(ready);
            }
        };
        match step {
            Ok(next) => turn = next,
            Err(fault) => break Err(fault),
        }
    };
    Talk {
        negotiation,
        sent,
        end,
    }
}

fn script(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

const V33: &[u8] = b"RFB 003.003\n";
const V37: &[u8] = b"RFB 003.007\n";
const V38: &[u8] = b"RFB 003.008\n";
const OK: &[u8] = &[0; 4];

/// `VeNCrypt` up to TLS, with one subtype.
fn vencrypt(subtype: u16) -> Vec<u8> {
    let mut bytes = script(&[V38, &[1, 19], &[0, 2], &[0], &[1, 0, 0]]);
    bytes.extend(subtype.to_be_bytes());
    bytes.push(1);
    bytes
}

fn opened(talk: &Talk) -> Scheme {
    assert_eq!(talk.end, Ok(Next::Ready(Ready::Open)));
    talk.negotiation.scheme().unwrap()
}

#[test]
fn a_server_without_security_is_opened_in_each_dialect() {
    for (version, rest, sent) in [
        (V33, &[0, 0, 0, 1][..], script(&[V33])),
        (V37, &[1, 1], script(&[V37, &[1]])),
        (V38, &[1, 1, 0, 0, 0, 0], script(&[V38, &[1]])),
    ] {
        let talk = talk(open_means(), &script(&[version, rest]));
        assert_eq!(opened(&talk), Scheme::None);
        assert_eq!(talk.sent, sent);
    }
}

#[test]
fn a_password_is_proved_without_the_viewer_in_each_dialect() {
    let answer = vncauth::answer(&Password::from("secret".to_owned()), &CHALLENGE_BYTES);
    for (version, types, choice) in [
        (V33, &[0, 0, 0, 2][..], &[][..]),
        (V37, &[1, 2], &[2]),
        (V38, &[2, 200, 2], &[2]),
    ] {
        let script = script(&[version, types, &CHALLENGE_BYTES, OK]);
        let talk = talk(with_password(open_means()), &script);
        assert_eq!(opened(&talk), Scheme::VncAuth);
        assert_eq!(talk.sent, [version, choice, &answer].concat());
    }
}

#[test]
fn without_a_password_the_viewer_is_asked() {
    for script in [
        script(&[V38, &[1, 2], &CHALLENGE_BYTES]),
        script(&[V33, &[0, 0, 0, 2], &CHALLENGE_BYTES]),
        script(&[&vencrypt(261), &CHALLENGE_BYTES]),
    ] {
        let mut talk = talk(open_means(), &script);
        let asked = Next::Ready(Ready::Challenged(CHALLENGE_BYTES));
        assert_eq!(talk.end, Ok(asked));

        let turn = talk.negotiation.answer(&[3; CHALLENGE]).unwrap();
        assert_eq!(
            (turn.send.as_slice(), turn.next),
            (&[3; 16][..], Next::Read(4))
        );
    }
}

#[test]
fn what_needs_no_viewer_is_preferred_to_what_does() {
    let talk = talk(open_means(), &script(&[V38, &[2, 2, 1], OK]));
    assert_eq!(opened(&talk), Scheme::None);
}

#[test]
fn our_order_decides_and_not_the_servers() {
    let offer = script(&[V38, &[2, 1, 19]]);
    let first = |names: &[&str]| talk(allowing(names), &offer).sent.last().copied();
    assert_eq!(first(&["vencrypt", "none"]), Some(19));
    assert_eq!(first(&["none", "vencrypt"]), Some(1));
}

#[test]
fn a_server_with_a_certificate_is_opened_by_each_of_its_schemes() {
    let answer = vncauth::answer(&Password::from("secret".to_owned()), &CHALLENGE_BYTES);
    let login = b"\0\0\0\x03\0\0\0\x06annsecret";
    for (subtype, inside, scheme, said) in [
        (260_u16, script(&[OK]), Scheme::X509None, &[][..]),
        (
            261,
            script(&[&CHALLENGE_BYTES, OK]),
            Scheme::X509Vnc,
            &answer,
        ),
        (262, script(&[OK]), Scheme::X509Plain, login),
    ] {
        let means = with_password(allowing(&["vencrypt"]));
        let talk = talk(means, &script(&[&vencrypt(subtype), &inside]));
        assert_eq!(opened(&talk), scheme);
        let [high, low] = subtype.to_be_bytes();
        let choices = [19, 0, 2, 0, 0, high, low];
        assert_eq!(talk.sent, [V38, &choices, said].concat());
    }
}

#[test]
fn an_encrypted_only_setting_never_falls_back() {
    let means = allowing(&["vencrypt"]);
    let talk = talk(means, &script(&[V38, &[2, 2, 1]]));
    let fault = talk.end.unwrap_err();
    let text = fault.to_string();
    assert!(text.contains("does not allow VncAuth"), "{text}");
    assert!(matches!(fault, Fault::NoCommon { beside: false, .. }));
    assert_eq!(talk.sent, V38, "nothing was chosen");
}

#[test]
fn anonymous_tls_and_ra2_are_refused_in_words() {
    let anonymous = talk(open_means(), &vencrypt(258)).end.unwrap_err();
    assert!(anonymous.to_string().contains("TLSVnc"), "{anonymous}");
    assert!(anonymous.to_string().contains("does not prove who it is"));
    let ra2 = talk(open_means(), &script(&[V38, &[1, 5]]))
        .end
        .unwrap_err();
    assert!(ra2.to_string().contains("RealVNC's own"), "{ra2}");
}

#[test]
fn what_could_be_had_beside_a_useless_vencrypt_is_told() {
    let mut script = script(&[V38, &[2, 19, 2], &[0, 2], &[0], &[1]]);
    script.extend(258_u32.to_be_bytes());
    let fault = talk(open_means(), &script).end.unwrap_err();
    assert!(matches!(fault, Fault::NoCommon { beside: true, .. }));
    let plain = open_means().beside_vencrypt();
    assert_eq!(Vec::from(plain.schemes), [Scheme::VncAuth, Scheme::None]);
}

#[test]
fn without_a_ca_no_certificate_is_believed() {
    let fault = talk(Means::default(), &vencrypt(260)).end.unwrap_err();
    assert!(fault.to_string().contains("no `ca_file`"), "{fault}");
}

#[test]
fn a_login_without_a_user_is_refused_in_words() {
    let fault = talk(open_means(), &vencrypt(262)).end.unwrap_err();
    assert!(
        fault.to_string().contains("`user` and `password_file`"),
        "{fault}"
    );
}

#[test]
fn a_reason_is_read_to_its_limit_and_shown_without_control_characters() {
    let huge = u32::MAX.to_be_bytes();
    let mut script = script(&[V38, &[0], &huge]);
    script.extend(b"\x1b[31mno");
    script.resize(script.len() + LONGEST_REASON, b' ');
    let fault = talk(open_means(), &script).end.unwrap_err();
    let reason = "[31mno".to_owned();
    assert_eq!(fault, Fault::Closed { reason });
}

#[test]
fn a_wrong_password_is_told_in_the_servers_words() {
    let no = b"\0\0\0\x01\0\0\0\x05wrong";
    let script = script(&[V38, &[1, 2], &CHALLENGE_BYTES, no]);
    let fault = talk(with_password(open_means()), &script).end.unwrap_err();
    assert_eq!(fault.to_string(), "it refused us with vncauth: wrong");
    let bytes = [V37, &[1, 2], &CHALLENGE_BYTES, &[0, 0, 0, 1]].concat();
    let silent = talk(with_password(open_means()), &bytes);
    let text = silent.end.unwrap_err().to_string();
    assert_eq!(text, "it refused us with vncauth: it did not say why");
}

#[test]
fn a_server_that_takes_back_what_it_offered_is_refused() {
    let version = talk(open_means(), &script(&[V38, &[1, 19], &[0, 1]]));
    assert_eq!(version.end, Err(Fault::VencryptVersion(0, 1)));
    let status = talk(open_means(), &script(&[V38, &[1, 19], &[0, 2], &[255]]));
    assert_eq!(status.end, Err(Fault::TakenBack("VeNCrypt 0.2")));
    let mut none = vencrypt(260);
    *none.last_mut().unwrap() = 0;
    assert_eq!(
        talk(open_means(), &none).end,
        Err(Fault::TakenBack("x509none"))
    );
    let empty = talk(open_means(), &script(&[V38, &[1, 19], &[0, 2], &[0], &[0]]));
    assert!(
        empty
            .end
            .unwrap_err()
            .to_string()
            .contains("no VeNCrypt subtype")
    );
}

#[test]
fn every_step_of_a_handshake_has_a_name() {
    let mut steps = Vec::new();
    let whole = script(&[&vencrypt(261), &CHALLENGE_BYTES]);
    for length in 0..=whole.len() {
        let step = talk(open_means(), &whole[..length]).negotiation.step();
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    let all = [
        Step::Version,
        Step::Types,
        Step::Vencrypt,
        Step::Inside,
        Step::Challenge,
    ];
    assert_eq!(steps, all);
}

#[test]
fn a_turn_shows_nothing_of_what_it_sends() {
    let means = with_password(allowing(&["vencrypt"]));
    let mut talk = talk(means, &vencrypt(262));
    talk.negotiation.state = State::Tls;
    let turn = talk.negotiation.secured().unwrap();
    assert!(!format!("{turn:?} {:?}", talk.negotiation).contains("secret"));
}
