//! What a key is called on the picture.
//!
//! The numbers are X11's keysyms (keysymdef.h), as RFC 6143 section 7.5.4 has them.

/// The name of a key; printable ASCII stands for itself.
pub(super) fn name(keysym: u32) -> String {
    if let Some(named) = NAMES.iter().find(|(known, _)| *known == keysym) {
        return named.1.to_owned();
    }
    match keysym {
        0x21..=0x7e => char::from_u32(keysym).map_or_else(String::new, String::from),
        0xa0..=0xff => format!("U+{keysym:04X}"),
        0xffb0..=0xffb9 => format!("KP{}", keysym - 0xffb0),
        0xffbe..=0xffd5 => format!("F{}", keysym - 0xffbd),
        0x0100_0100..=0x0110_ffff => format!("U+{:04X}", keysym - 0x0100_0000),
        _ => format!("0x{keysym:x}"),
    }
}

const NAMES: [(u32, &str); 37] = [
    (0x20, "Space"),
    (0xfe03, "AltGr"),
    (0xfe20, "BackTab"),
    (0xff08, "Backspace"),
    (0xff09, "Tab"),
    (0xff0d, "Enter"),
    (0xff13, "Pause"),
    (0xff14, "ScrollLock"),
    (0xff1b, "Esc"),
    (0xff50, "Home"),
    (0xff51, "Left"),
    (0xff52, "Up"),
    (0xff53, "Right"),
    (0xff54, "Down"),
    (0xff55, "PageUp"),
    (0xff56, "PageDown"),
    (0xff57, "End"),
    (0xff61, "Print"),
    (0xff63, "Insert"),
    (0xff67, "Menu"),
    (0xff7f, "NumLock"),
    (0xff8d, "KPEnter"),
    (0xffaa, "KP*"),
    (0xffab, "KP+"),
    (0xffad, "KP-"),
    (0xffaf, "KP/"),
    (0xffe1, "Shift"),
    (0xffe2, "Shift"),
    (0xffe3, "Ctrl"),
    (0xffe4, "Ctrl"),
    (0xffe5, "CapsLock"),
    (0xffe7, "Meta"),
    (0xffe8, "Meta"),
    (0xffe9, "Alt"),
    (0xffea, "Alt"),
    (0xffeb, "Super"),
    (0xffff, "Delete"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_themselves_and_the_rest_has_names() {
        let names = [
            0x61,
            0x20,
            0xff0d,
            0xffbe,
            0xffc9,
            0xe9,
            0x0100_20ac,
            0x1234,
        ]
        .map(name);

        assert_eq!(
            names,
            [
                "a", "Space", "Enter", "F1", "F12", "U+00E9", "U+20AC", "0x1234"
            ]
        );
    }
}
