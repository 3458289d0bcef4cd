use proptest::prelude::*;

use super::*;

const LIMIT: usize = 70_000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const BINARY: u8 = 0x82;
const BINARY_FIRST: u8 = 0x02;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Everything a decoder said about a connection.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    payload: Vec<u8>,
    pings: Vec<Vec<u8>>,
    pongs: usize,
    end: Option<End>,
}

/// A client frame as a browser makes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

fn hear<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut decoder = Decoder::new(LIMIT);
    let mut heard = Heard::default();
    for read in reads {
        let mut bytes = read.to_vec();
        let found = decoder.decode(&mut bytes, |control| match control {
            Control::Ping(payload) => heard.pings.push(payload.to_vec()),
            Control::Pong => heard.pongs += 1,
        });
        heard.payload.extend_from_slice(&bytes[found.payload]);
        if found.end.is_some() {
            assert!(heard.end.is_none(), "there is one end");
            heard.end = found.end;
        }
    }
    heard
}

fn hear_at_once(frames: &[Vec<u8>]) -> Heard {
    hear([frames.concat().as_slice()])
}

/// The end of a connection whose frames are one good one, `offending`, and a good one.
#[track_caller]
fn assert_refused(offending: &[u8], violation: Violation) {
    let stream = [
        frame(BINARY, b"before"),
        offending.to_vec(),
        frame(BINARY, b"after"),
    ]
    .concat();

    for read in [1, 3, stream.len()] {
        let heard = hear(stream.chunks(read));

        assert_eq!(heard.end, Some(End::Violation(violation)));
        assert_eq!(heard.payload, b"before");
    }
}

#[test]
fn a_binary_frame_gives_its_payload() {
    assert_eq!(hear_at_once(&[frame(BINARY, b"hello")]).payload, b"hello");
}

#[test]
fn payloads_of_one_read_lie_side_by_side() {
    let heard = hear_at_once(&[
        frame(BINARY, b"one"),
        frame(BINARY, b"two"),
        frame(BINARY, b"3"),
    ]);

    assert_eq!(heard.payload, b"onetwo3");
}

#[test]
fn a_frame_cut_into_single_bytes_is_the_same_frame() {
    let bytes = frame(BINARY, &[9; 300]);

    assert_eq!(hear(bytes.chunks(1)).payload, [9; 300]);
}

#[test]
fn fragments_are_passed_on_as_they_come() {
    let heard = hear_at_once(&[
        frame(BINARY_FIRST, b"a"),
        frame(MIDDLE, b"b"),
        frame(LAST, b"c"),
    ]);

    assert_eq!(heard.payload, b"abc");
}

#[test]
fn empty_frames_and_empty_fragments_are_fine() {
    let heard = hear_at_once(&[
        frame(BINARY, b""),
        frame(BINARY_FIRST, b""),
        frame(MIDDLE, b""),
        frame(LAST, b""),
        frame(BINARY, b"x"),
    ]);

    assert_eq!(
        (heard.payload.as_slice(), heard.end),
        (b"x".as_slice(), None)
    );
}

#[test]
fn a_message_of_many_frames_may_be_longer_than_one_frame() {
    let part = vec![1; LIMIT];
    let heard = hear_at_once(&[
        frame(BINARY_FIRST, &part),
        frame(MIDDLE, &part),
        frame(LAST, &part),
    ]);

    assert_eq!((heard.payload.len(), heard.end), (3 * LIMIT, None));
}

#[test]
fn a_ping_between_fragments_is_heard() {
    let heard = hear_at_once(&[
        frame(BINARY_FIRST, b"a"),
        frame(PING, b"there?"),
        frame(LAST, b"b"),
    ]);

    assert_eq!(heard.pings, [b"there?"]);
    assert_eq!(heard.payload, b"ab");
}

#[test]
fn a_ping_of_125_bytes_is_heard() {
    assert_eq!(hear_at_once(&[frame(PING, &[5; 125])]).pings, [[5; 125]]);
}

#[test]
fn a_pong_is_heard() {
    assert_eq!(
        hear_at_once(&[frame(PONG, b"yes"), frame(PONG, b"")]).pongs,
        2
    );
}

#[test]
fn a_close_frame_gives_its_code_and_reason() {
    let heard = hear_at_once(&[frame(CLOSE, b"\x03\xe8bye")]);

    let close = Close {
        code: Some(1000),
        reason: "bye".to_owned(),
    };
    assert_eq!(heard.end, Some(End::Close(close)));
}

#[test]
fn an_empty_close_frame_has_no_code() {
    assert_eq!(
        hear_at_once(&[frame(CLOSE, b"")]).end,
        Some(End::Close(Close::default()))
    );
}

#[test]
fn nothing_after_a_close_frame_counts() {
    let heard = hear_at_once(&[frame(BINARY, b"1"), frame(CLOSE, b""), frame(BINARY, b"2")]);

    assert_eq!(heard.payload, b"1");
}

#[test]
fn a_close_within_a_message_is_heard() {
    let heard = hear_at_once(&[frame(BINARY_FIRST, b"1"), frame(CLOSE, b"")]);

    assert_eq!(heard.end, Some(End::Close(Close::default())));
}

#[test]
fn a_frame_without_a_mask_is_refused() {
    assert_refused(b"\x82\x01x", Violation::Unmasked);
}

#[test]
fn an_empty_frame_without_a_mask_is_refused() {
    assert_refused(b"\x82\x00", Violation::Unmasked);
}

#[test]
fn each_reserved_bit_is_refused() {
    for bit in [0x40, 0x20, 0x10] {
        assert_refused(&frame(BINARY | bit, b"x"), Violation::ReservedBits);
    }
}

#[test]
fn each_reserved_opcode_is_refused() {
    for opcode in (3..8).chain(11..16) {
        assert_refused(&frame(0x80 | opcode, b"x"), Violation::ReservedOpcode);
    }
}

#[test]
fn a_text_frame_is_refused() {
    assert_refused(&frame(TEXT, b"x"), Violation::Text);
}

#[test]
fn a_fragmented_text_message_is_refused_at_its_start() {
    assert_refused(
        &[frame(0x01, b"x"), frame(LAST, b"y")].concat(),
        Violation::Text,
    );
}

#[test]
fn a_continuation_of_nothing_is_refused() {
    assert_refused(&frame(LAST, b"x"), Violation::Continuation);
}

#[test]
fn a_continuation_after_the_last_fragment_is_refused() {
    let frames = [
        frame(BINARY_FIRST, b""),
        frame(LAST, b""),
        frame(LAST, b"x"),
    ];

    assert_refused(&frames.concat(), Violation::Continuation);
}

#[test]
fn a_new_message_within_a_message_is_refused() {
    assert_refused(
        &[frame(BINARY_FIRST, b""), frame(BINARY, b"x")].concat(),
        Violation::Interleaved,
    );
}

#[test]
fn a_fragmented_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG] {
        assert_refused(&frame(opcode & 0x0f, b""), Violation::ControlFrame);
    }
}

#[test]
fn a_long_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG] {
        assert_refused(&frame(opcode, &[b'x'; 126]), Violation::ControlFrame);
    }
}

#[test]
fn a_length_of_16_bits_that_fits_7_is_refused() {
    assert_refused(b"\x82\xfe\x00\x7d\0\0\0\0", Violation::Length);
}

#[test]
fn a_length_of_64_bits_that_fits_16_is_refused() {
    assert_refused(b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", Violation::Length);
}

#[test]
fn a_length_with_its_highest_bit_set_is_refused() {
    assert_refused(b"\x82\xff\x80\0\0\0\0\x10\0\0\0\0\0\0", Violation::Length);
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_header() {
    assert_refused(b"\x82\xff\0\0\0\0\0\x01\x11\x71\0\0\0\0", Violation::TooBig);
}

#[test]
fn a_frame_of_the_limit_is_taken() {
    assert_eq!(hear_at_once(&[frame(BINARY, &vec![0; LIMIT])]).end, None);
}

#[test]
fn the_longest_length_is_too_big() {
    assert_refused(
        b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        Violation::TooBig,
    );
}

#[test]
fn a_close_with_half_a_code_is_refused() {
    assert_refused(&frame(CLOSE, b"\x03"), Violation::CloseFrame);
}

#[test]
fn close_codes_not_meant_for_the_wire_are_refused() {
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert_refused(&frame(CLOSE, &code.to_be_bytes()), Violation::CloseFrame);
    }
}

#[test]
fn close_codes_of_standards_libraries_and_applications_are_taken() {
    for code in [1000_u16, 1003, 1007, 1011, 1014, 3000, 4999] {
        let heard = hear_at_once(&[frame(CLOSE, &code.to_be_bytes())]);

        let close = Close {
            code: Some(code),
            reason: String::new(),
        };
        assert_eq!(heard.end, Some(End::Close(close)));
    }
}

#[test]
fn a_close_reason_that_is_not_text_is_refused() {
    assert_refused(&frame(CLOSE, b"\x03\xe8\xff\xfe"), Violation::CloseFrame);
}

#[test]
fn violations_have_the_codes_of_the_standard() {
    assert_eq!(Violation::Text.code(), 1003);
    assert_eq!(Violation::TooBig.code(), 1009);
    assert_eq!(Violation::Unmasked.code(), 1002);
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 176, "{}", size_of::<Decoder>());
}

/// The rules read off the standard one after the other, over a connection's whole stream.
fn reference(stream: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut in_message = false;
    let mut rest = stream;
    while let Some((first, mask, payload, next)) = reference_frame(rest, in_message, &mut heard) {
        let payload: Vec<u8> = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();
        let whole = next.is_some();
        match first & 0x0f {
            0x8 if whole => {
                heard.end = Some(match Close::parse(&payload) {
                    Ok(close) => End::Close(close),
                    Err(violation) => End::Violation(violation),
                });
                return heard;
            }
            0x9 if whole => heard.pings.push(payload),
            0xa if whole => heard.pongs += 1,
            0x0 | 0x2 => {
                heard.payload.extend(payload);
                in_message = first & 0x80 == 0;
            }
            _ => {}
        }
        let Some(next) = next else { break };
        rest = next;
    }
    heard
}

type ReferenceFrame<'a> = (u8, [u8; 4], &'a [u8], Option<&'a [u8]>);

/// One frame: first byte, mask, masked payload as far as it is there, and what follows it.
fn reference_frame<'a>(
    rest: &'a [u8],
    in_message: bool,
    heard: &mut Heard,
) -> Option<ReferenceFrame<'a>> {
    let [first, second, after @ ..] = rest else {
        return None;
    };
    let (length, after) = match second & 0x7f {
        126 => {
            let (length, after) = after.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*length)), after)
        }
        127 => {
            let (length, after) = after.split_first_chunk()?;
            (u64::from_be_bytes(*length), after)
        }
        short => (u64::from(short), after),
    };
    let masked = second & 0x80 != 0;
    if masked && after.len() < 4 {
        return None;
    }
    let violation = reference_violation([*first, *second], length, in_message);
    if let Some(violation) = violation {
        heard.end = Some(End::Violation(violation));
        return None;
    }
    let (mask, after) = after.split_first_chunk::<4>()?;
    let length = usize::try_from(length).unwrap();
    match after.split_at_checked(length) {
        Some((payload, next)) => Some((*first, *mask, payload, Some(next))),
        None => Some((*first, *mask, after, None)),
    }
}

/// What is wrong with a frame that begins with these bytes.
fn reference_violation(
    [first, second]: [u8; 2],
    length: u64,
    in_message: bool,
) -> Option<Violation> {
    let shortest = match second & 0x7f {
        126 => length > 125,
        127 => length > 65_535 && length < 1 << 63,
        _ => true,
    };
    let opcode = first & 0x0f;
    let control = opcode >= 8;
    if matches!(opcode, 3..=7 | 11..=15) {
        Some(Violation::ReservedOpcode)
    } else if first & 0x70 != 0 {
        Some(Violation::ReservedBits)
    } else if second & 0x80 == 0 {
        Some(Violation::Unmasked)
    } else if !shortest {
        Some(Violation::Length)
    } else if control && (first & 0x80 == 0 || length > 125) {
        Some(Violation::ControlFrame)
    } else if opcode == 1 {
        Some(Violation::Text)
    } else if opcode == 0 && !in_message {
        Some(Violation::Continuation)
    } else if opcode == 2 && in_message {
        Some(Violation::Interleaved)
    } else if !control && length > u64::try_from(LIMIT).unwrap() {
        Some(Violation::TooBig)
    } else {
        None
    }
}

/// A payload that is mostly short and now and then crosses the limits of the length forms.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        8 => 0_usize..20,
        2 => 120_usize..135,
        1 => 65_530_usize..65_540,
    ];
    (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length)
            .map(|at| seed.wrapping_add(at.to_le_bytes()[0]))
            .collect()
    })
}

/// A message in fragments, with control frames between them.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let control = (
        prop_oneof![Just(PING), Just(PONG)],
        proptest::collection::vec(any::<u8>(), 0..126),
    );
    let controls = proptest::collection::vec(control, 0..2);
    proptest::collection::vec((payloads(), controls), 1..4).prop_map(|parts| {
        let last = parts.len() - 1;
        let mut stream = Vec::new();
        for (at, (payload, controls)) in parts.into_iter().enumerate() {
            let opcode = if at == 0 { BINARY_FIRST } else { MIDDLE };
            let end = if at == last { 0x80 } else { 0 };
            for (kind, payload) in controls {
                stream.extend(frame(kind, &payload));
            }
            stream.extend(frame(opcode | end, &payload));
        }
        stream
    })
}

/// `stream` cut at distances taken from `cuts`, round and round.
fn chop<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while !stream.is_empty() {
        let (read, rest) = stream.split_at(stream.len().min(*cuts.next().unwrap()));
        reads.push(read);
        stream = rest;
    }
    reads
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![4 => Just(1_usize), 4 => 1_usize..30, 1 => 1_usize..100_000];
    proptest::collection::vec(cut, 1..12)
}

proptest! {
    #[test]
    fn good_messages_are_heard_alike_however_they_are_cut(
        messages in proptest::collection::vec(messages(), 0..6),
        close in proptest::option::of(1000_u16..1004),
        cuts in cuts(),
    ) {
        let mut stream = messages.concat();
        if let Some(code) = close {
            stream.extend(frame(CLOSE, &code.to_be_bytes()));
        }

        prop_assert_eq!(hear(chop(&stream, &cuts)), reference(&stream));
    }

    #[test]
    fn spoiled_messages_are_heard_alike_however_they_are_cut(
        messages in proptest::collection::vec(messages(), 1..6),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in cuts(),
    ) {
        let mut stream = messages.concat();
        for (at, byte) in spoils {
            let at = at.index(stream.len().min(64));
            stream[at] = byte;
        }

        prop_assert_eq!(hear(chop(&stream, &cuts)), reference(&stream));
    }

    #[test]
    fn any_bytes_are_heard_alike_however_they_are_cut(
        stream in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in cuts(),
    ) {
        prop_assert_eq!(hear(chop(&stream, &cuts)), reference(&stream));
    }
}
