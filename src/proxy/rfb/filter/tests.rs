use proptest::prelude::*;

use super::encodings::NOTHING;
use super::*;

const INPUT_ONLY: Rights = Rights {
    input: true,
    ..Rights::VIEW
};

fn up(rights: Rights, bytes: &[u8], cut: usize) -> Result<Vec<u8>, Unfiltered> {
    let mut filter = Filter::new(rights);
    let mut kept = Vec::new();
    for piece in bytes.chunks(cut) {
        filter.up(piece, &mut kept)?;
    }
    Ok(kept)
}

/// What a viewer who may only look gets of a server's bytes, after a `ServerInit`.
fn down(bytes: &[u8], cut: usize) -> Result<Vec<u8>, Unfiltered> {
    let mut filter = Filter::new(Rights::VIEW);
    let start = server_init(&RGB);
    let mut start_copy = start.clone();
    assert_eq!(filter.down(&mut start_copy)?, start.len());
    let mut kept = Vec::new();
    for piece in bytes.chunks(cut) {
        let mut piece = piece.to_vec();
        let length = filter.down(&mut piece)?;
        kept.extend(&piece[..length]);
    }
    Ok(kept)
}

/// 32 bits, 24 of them colour: four bytes a pixel, three in Tight.
const RGB: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
const GREY: [u8; 16] = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0];

fn server_init(format: &[u8; 16]) -> Vec<u8> {
    [&[0, 64, 0, 64], &format[..], b"\0\0\0\x04name"].concat()
}

fn encodings(list: &[i32]) -> Vec<u8> {
    let mut message = vec![2, 0];
    message.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
    message.extend(list.iter().flat_map(|encoding| encoding.to_be_bytes()));
    message
}

fn format(format: &[u8; 16]) -> Vec<u8> {
    [&[0, 0, 0, 0], &format[..]].concat()
}

const KEY: &[u8] = &[4, 1, 0, 0, 0, 0, 0, 97];
const POINTER: &[u8] = &[5, 0x81, 0, 1, 0, 1];
const QEMU_KEY: &[u8] = &[255, 0, 0, 1, 0, 0, 0, 97, 0, 0, 0, 30];
const QEMU_SOUND: &[u8] = &[255, 1, 0, 2, 3, 2, 0, 0, 172, 68];
const QEMU_NO_SOUND: &[u8] = &[255, 1, 0, 1];
const CUT_TEXT: &[u8] = b"\x06\0\0\0\0\0\0\x05hello";
const EXTENDED_CUT_TEXT: &[u8] = &[6, 0, 0, 0, 255, 255, 255, 252, 1, 0, 0, 1];
const RESIZE: &[u8] = &[
    251, 0, 4, 0, 3, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0,
];
const POWER_OFF: &[u8] = &[250, 0, 1, 2];
const GII: &[u8] = &[253, 0x82, 0, 2, 9, 9];
const COLOURS: &[u8] = &[1, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6];
const UPDATE: &[u8] = &[3, 1, 0, 0, 0, 0, 0, 64, 0, 64];
const CONTINUOUS: &[u8] = &[150, 1, 0, 0, 0, 0, 0, 64, 0, 64];
const FENCE: &[u8] = &[248, 0, 0, 0, 0, 0, 0, 1, 2, 7, 7];

/// All that a viewer can send, and whether one who only looks may.
fn conversation() -> Vec<(Vec<u8>, bool)> {
    let all: [(&[u8], bool); 14] = [
        (KEY, false),
        (UPDATE, true),
        (POINTER, false),
        (QEMU_KEY, false),
        (CONTINUOUS, true),
        (QEMU_SOUND, false),
        (QEMU_NO_SOUND, false),
        (CUT_TEXT, false),
        (FENCE, true),
        (EXTENDED_CUT_TEXT, false),
        (RESIZE, false),
        (COLOURS, true),
        (POWER_OFF, false),
        (GII, false),
    ];
    let mut all: Vec<_> = all.iter().map(|(it, may)| (it.to_vec(), *may)).collect();
    all.push((format(&RGB), true));
    all.push((encodings(&[]), true));
    all.push((UPDATE.to_vec(), true));
    all
}

fn joined(messages: &[(Vec<u8>, bool)], wanted: impl Fn(&(Vec<u8>, bool)) -> bool) -> Vec<u8> {
    let wanted = messages.iter().filter(|message| wanted(message));
    let mut bytes = vec![1];
    wanted.for_each(|(message, _)| bytes.extend(message));
    bytes
}

#[test]
fn whoever_only_looks_sends_nothing_but_what_looking_takes_however_it_is_cut() {
    let all = conversation();
    let (whole, looking) = (joined(&all, |_| true), joined(&all, |(_, may)| *may));
    for cut in 1..=whole.len() {
        assert_eq!(up(Rights::VIEW, &whole, cut).unwrap(), looking, "{cut}");
    }
}

#[test]
fn input_without_a_clipboard_lets_everything_through_but_cut_texts() {
    let all = conversation();
    let whole = joined(&all, |_| true);
    let expected = joined(&all, |(message, _)| message[0] != 6);
    assert_eq!(up(INPUT_ONLY, &whole, 3).unwrap(), expected);
    let pasting = Rights {
        clipboard_in: true,
        ..Rights::VIEW
    };
    let expected = joined(&all, |(message, may)| *may || message[0] == 6);
    assert_eq!(up(pasting, &whole, 3).unwrap(), expected);
}

/// A filter whose viewer has said what comes before its messages.
fn live(rights: Rights) -> Filter {
    let mut filter = Filter::new(rights);
    filter.up(&[1], &mut Vec::new()).unwrap();
    filter
}

fn say(filter: &mut Filter, bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    filter.up(bytes, &mut kept).unwrap();
    kept
}

#[test]
fn whoever_may_do_everything_is_held_up_by_not_a_byte() {
    let mut filter = Filter::new(Rights::CONTROL);
    let odd = encodings(&[-316, 21, 7]);
    let all = [&[0], &odd[..], KEY, CUT_TEXT, QEMU_KEY, b"\x4dwhatever"].concat();
    for byte in &all {
        assert_eq!(say(&mut filter, &[*byte]), [*byte]);
    }
    assert_eq!(filter.down(&mut [77; 9]), Ok(9));
}

#[test]
fn rights_that_are_taken_are_gone_with_the_next_message_and_come_back_as_they_were() {
    let mut filter = live(Rights::CONTROL);
    let (first, rest) = CUT_TEXT.split_at(5);
    assert_eq!(say(&mut filter, first), first);

    filter.change(Rights::VIEW);

    assert_eq!(say(&mut filter, &[rest, KEY, CUT_TEXT].concat()), rest);
    let (half, other) = KEY.split_at(3);
    assert_eq!(say(&mut filter, half), b"");
    filter.change(Rights::CONTROL);
    assert_eq!(say(&mut filter, &[other, KEY].concat()), KEY);
    let typing = Rights {
        clipboard_in: false,
        ..Rights::CONTROL
    };
    filter.change(typing);
    assert_eq!(say(&mut filter, &[CUT_TEXT, KEY].concat()), KEY);
}

#[test]
fn what_is_held_down_is_let_go_when_input_is_taken() {
    let mut filter = live(Rights::CONTROL);
    let released = [4, 0, 0, 0, 0, 0, 0, 97];
    let other_key = [4, 1, 0, 0, 0, 0, 0, 98];
    let pressed = [
        KEY,
        QEMU_KEY,
        POINTER,
        &other_key,
        &[4, 0, 0, 0, 0, 0, 0, 98],
    ]
    .concat();
    say(&mut filter, &pressed);

    filter.change(Rights::VIEW);
    let kept = say(&mut filter, &[5, 0, 0, 9, 0, 9]);

    let qemu = [255, 0, 0, 0, 0, 0, 0, 97, 0, 0, 0, 30];
    let pointer = [5, 0, 0, 1, 0, 1];
    assert_eq!(kept, [&released[..], &qemu, &pointer].concat());
    assert_eq!(say(&mut filter, KEY), b"");
}

#[test]
fn a_viewer_that_cannot_be_followed_goes_on_until_it_is_to_have_less() {
    let mut filter = live(Rights::CONTROL);
    let strange = [KEY, &[77, 1, 2, 3], KEY].concat();
    assert_eq!(say(&mut filter, &strange), strange);

    filter.change(Rights::VIEW);

    let refused = filter.up(KEY, &mut Vec::new());
    assert_eq!(refused, Err(Unfiltered::Viewer(77)));
}

#[test]
fn pointer_events_with_many_buttons_are_followed_where_the_viewer_said_so() {
    let mut filter = live(Rights::CONTROL);
    let long = [5, 0x80, 0, 1, 0, 1, 4];
    say(&mut filter, &[&encodings(&[-316])[..], &long].concat());

    filter.change(Rights::VIEW);

    let kept = say(&mut filter, &[&long[..], KEY, UPDATE].concat());
    assert_eq!(kept, [&[5, 0, 0, 1, 0, 1], UPDATE].concat());
}

#[test]
fn what_a_viewer_may_see_stays_as_it_began() {
    let secret = b"\x03\0\0\0\0\0\0\x06secret";
    let mut filter = Filter::new(Rights::VIEW);
    let mut start = server_init(&RGB);
    filter.down(&mut start).unwrap();
    filter.change(Rights::CONTROL);
    assert_eq!(filter.down(&mut secret.to_vec()), Ok(0));

    let mut filter = live(Rights::CONTROL);
    filter.change(Rights::VIEW);
    assert_eq!(filter.down(&mut secret.to_vec()), Ok(secret.len()));
}

#[test]
fn whoever_only_looks_throws_nobody_out() {
    assert_eq!(up(Rights::VIEW, &[0], 1).unwrap(), [1]);
    assert_eq!(up(INPUT_ONLY, &[0], 1).unwrap(), [0]);
}

#[test]
fn an_unknown_message_ends_the_session() {
    for (bytes, kind) in [
        (&[1, 7][..], 7),
        (&[1, 255, 9], 255),
        (&[1, 255, 1, 0, 3], 255),
    ] {
        assert_eq!(up(Rights::VIEW, bytes, 1), Err(Unfiltered::Viewer(kind)));
    }
    let crooked = [&[1][..], &format(&[24; 16])].concat();
    assert_eq!(up(Rights::VIEW, &crooked, 64), Err(Unfiltered::Pixels(24)));
}

#[test]
fn a_server_is_offered_only_what_can_be_followed() {
    let clipboard = 0xc0a1_e5ce_u32.cast_signed();
    let wanted = encodings(&[1, 7, 21, -316, 0x574d_5664, clipboard, -309, -312, 15]);
    let bytes = [&[1][..], &wanted, UPDATE].concat();
    let n = NOTHING;
    let offered = [1, 7, n, n, 0x574d_5664, n, n, -312, n];
    let expected = [&[1][..], &encodings(&offered), UPDATE].concat();
    for cut in 1..=bytes.len() {
        assert_eq!(up(Rights::VIEW, &bytes, cut).unwrap(), expected);
    }
}

#[test]
fn where_the_clipboard_is_readable_every_encoding_is_fine_but_those_that_change_messages() {
    let reading = Rights {
        input: true,
        clipboard_in: false,
        clipboard_out: true,
    };
    let bytes = [&[1][..], &encodings(&[21, -316, -309])].concat();
    let expected = [&[1][..], &encodings(&[21, NOTHING, -309])].concat();
    assert_eq!(up(reading, &bytes, 5).unwrap(), expected);
    assert_eq!(Filter::new(reading).down(&mut [77; 9]), Ok(9));
}

/// A rectangle of 20 by 20 pixels.
fn rectangle(encoding: i32, body: &[u8]) -> Vec<u8> {
    rectangle_of(20, 20, encoding, body)
}

fn rectangle_of(width: u16, height: u16, encoding: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0];
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend(encoding.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn update(rectangles: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0, 0];
    message.extend(u16::try_from(rectangles.len()).unwrap().to_be_bytes());
    message.extend(rectangles.concat());
    message
}

/// Hextile of 20 by 20: four tiles, each of another kind.
fn tiles() -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend([3; 16 * 16 * 4]);
    bytes.extend([2 | 4, 3, 3, 3, 3, 3, 3, 3, 3]);
    bytes.extend([2 | 8, 3, 3, 3, 3, 2, 3, 3, 3, 3]);
    bytes.extend([8 | 16, 1, 3, 3, 3, 3, 3, 3]);
    bytes
}

/// Every kind of rectangle that is followed. All pixels are 3, which begins a cut text: whoever
/// loses count shows it.
fn rectangles() -> Vec<Vec<u8>> {
    let three = |count: usize| vec![3; count];
    let tight = |head: &[u8], size: usize| rectangle(7, &[head, &three(size)].concat());
    let with_length = |encoding| rectangle(encoding, &[&[0, 0, 0, 5], &three(5)[..]].concat());
    let parts = |size: usize| [&[0, 0, 0, 2][..], &three(4 + 2 * size)].concat();
    vec![
        rectangle(0, &three(20 * 20 * 4)),
        rectangle(1, &three(4)),
        rectangle(2, &parts(12)),
        rectangle(4, &parts(8)),
        rectangle(5, &tiles()),
        rectangle_of(0, 5, 5, &[]),
        with_length(6),
        with_length(16),
        with_length(17),
        with_length(-307),
        rectangle(50, &[&[0, 0, 0, 5, 0, 0, 0, 1], &three(5)[..]].concat()),
        tight(&[0x80], 3),
        tight(&[0x90, 5], 5),
        tight(&[0x0f, 0x85, 0x01], 133),
        tight(&[0x40, 0, 0x81, 0x80, 0x01], 1 << 14 | 1),
        tight(&[0x50, 2, 7], 7),
        // a palette of two: 3 bytes a row; of three: one byte a pixel
        tight(&[0x60, 1, 1, 3, 3, 3, 3, 3, 3, 9], 9),
        tight(&[0x60, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 9], 9),
        rectangle_of(3, 1, 7, &[&[0][..], &three(9)].concat()),
        rectangle_of(8, 9, 7, &[&[0x40, 1, 1][..], &three(6 + 9)].concat()),
        rectangle(-260, &[&[0xa0, 5], &three(5)[..]].concat()),
        rectangle(-239, &three(20 * 20 * 4 + 3 * 20)),
        rectangle(-240, &three(6 + 2 * 3 * 20)),
        rectangle_of(0, 0, -240, &[]),
        rectangle(0x574d_5664, &[&[0, 0][..], &three(20 * 20 * 8)].concat()),
        rectangle(0x574d_5664, &[&[1, 0][..], &three(20 * 20 * 4)].concat()),
        rectangle(-308, &[&[2, 0, 0, 0][..], &three(32)].concat()),
        rectangle(-261, &three(1)),
        rectangle(0x574d_5668, &three(4)),
        rectangle(-223, &[]),
        rectangle(-232, &[]),
        rectangle(-257, &[]),
        rectangle(-258, &[]),
    ]
}

const BELL: &[u8] = &[2];
const SERVER_CUT_TEXT: &[u8] = b"\x03\0\0\0\0\0\0\x06secret";
const EXTENDED_SECRET: &[u8] = &[3, 0, 0, 0, 255, 255, 255, 250, 16, 0, 0, 1, 9, 9];

/// What a server sends, with a secret between all messages if so wanted.
fn broadcast(with_secrets: bool) -> Vec<u8> {
    let mut messages = vec![update(&[]), update(&rectangles())];
    messages.extend(rectangles().into_iter().map(|one| update(&[one])));
    let mut open = vec![0, 0, 255, 255];
    open.extend(rectangles().concat());
    open.extend(rectangle(-224, &[]));
    messages.push(open);
    messages.extend([BELL, COLOURS, FENCE, POWER_OFF, GII, &[150]].map(<[u8]>::to_vec));
    let secret = [SERVER_CUT_TEXT, EXTENDED_SECRET].concat();
    let between: &[u8] = if with_secrets { &secret } else { &[] };
    messages
        .iter()
        .flat_map(|it| [it, between].concat())
        .collect()
}

#[test]
fn the_clipboard_is_taken_out_between_all_kinds_of_rectangles_however_they_are_cut() {
    let (with, without) = (broadcast(true), broadcast(false));
    for cut in (1..40).chain([100, 1000, with.len()]) {
        assert!(down(&with, cut).unwrap() == without, "cut into {cut}");
    }
}

#[test]
fn an_empty_secret_is_taken_out_too() {
    let bytes = [&[3, 0, 0, 0, 0, 0, 0, 0][..], BELL].concat();
    assert_eq!(down(&bytes, 1).unwrap(), BELL);
}

#[test]
fn a_last_rectangle_ends_an_update_of_any_announced_length() {
    let mut bytes = vec![0, 0, 0, 9];
    bytes.extend(rectangle(-224, &[]));
    let whole = [&bytes[..], SERVER_CUT_TEXT, BELL].concat();
    assert_eq!(down(&whole, 7).unwrap(), [&bytes[..], BELL].concat());
}

#[test]
fn what_was_not_offered_ends_the_session() {
    let jpeg = update(&[rectangle(21, &[])]);
    assert_eq!(down(&jpeg, 64), Err(Unfiltered::Encoding(21)));
    assert_eq!(down(&[255], 64), Err(Unfiltered::Server(255)));
    let tight = update(&[rectangle(7, &[0xf0])]);
    assert_eq!(down(&tight, 64), Err(Unfiltered::Rectangle(7)));
    let cursor = update(&[rectangle(0x574d_5664, &[7, 0])]);
    assert!(matches!(down(&cursor, 64), Err(Unfiltered::Rectangle(_))));
}

#[test]
fn new_pixels_count_from_the_next_update_on() {
    let mut filter = Filter::new(Rights::VIEW);
    filter.down(&mut server_init(&RGB)).unwrap();
    let rgb = update(&[rectangle(0, &[3; 1600])]);
    let (begun, rest) = rgb.split_at(100);
    filter.down(&mut begun.to_vec()).unwrap();

    let asked = [&[1][..], &format(&GREY)].concat();
    filter.up(&asked, &mut Vec::new()).unwrap();

    let grey = update(&[rectangle(0, &[3; 400])]);
    let mut bytes = [rest, &grey, SERVER_CUT_TEXT, BELL].concat();
    let kept = filter.down(&mut bytes).unwrap();
    assert_eq!(kept, rest.len() + grey.len() + BELL.len());
}

proptest! {
    #[test]
    fn no_viewer_can_smuggle_a_key_past_the_filter(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cut in 1..50_usize,
    ) {
        let whole = up(Rights::VIEW, &bytes, bytes.len().max(1));
        let pieces = up(Rights::VIEW, &bytes, cut);
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let Ok(kept) = whole {
            prop_assert_eq!(&kept, &pieces.unwrap());
            // What was kept is a stream of which nothing more is taken.
            prop_assert_eq!(&up(Rights::VIEW, &kept, cut).unwrap(), &kept);
        }
    }

    #[test]
    fn no_server_can_break_the_filter(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        cut in 1..50_usize,
    ) {
        let whole = down(&bytes, bytes.len().max(1));
        let pieces = down(&bytes, cut);
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            prop_assert_eq!(whole, pieces);
        }
    }
}
