//! Which encodings a server may be offered in a session whose rights are limited.

use crate::model::Rights;

pub(super) const RAW: i32 = 0;
pub(super) const COPY_RECT: i32 = 1;
pub(super) const RRE: i32 = 2;
pub(super) const CORRE: i32 = 4;
pub(super) const HEXTILE: i32 = 5;
pub(super) const ZLIB: i32 = 6;
pub(super) const TIGHT: i32 = 7;
pub(super) const ZRLE: i32 = 16;
pub(super) const ZYWRLE: i32 = 17;
pub(super) const H264: i32 = 50;
pub(super) const TIGHT_PNG: i32 = -260;

pub(super) const DESKTOP_SIZE: i32 = -223;
pub(super) const LAST_RECT: i32 = -224;
pub(super) const POINTER_POSITION: i32 = -232;
pub(super) const CURSOR: i32 = -239;
pub(super) const X_CURSOR: i32 = -240;
pub(super) const QEMU_POINTER_MOTION: i32 = -257;
pub(super) const QEMU_KEYS: i32 = -258;
pub(super) const QEMU_LEDS: i32 = -261;
pub(super) const DESKTOP_NAME: i32 = -307;
pub(super) const EXTENDED_DESKTOP_SIZE: i32 = -308;
pub(super) const VMWARE_CURSOR: i32 = 0x574d_5664;
pub(super) const VMWARE_LEDS: i32 = 0x574d_5668;

const XVP: i32 = -309;
const FENCE: i32 = -312;
const CONTINUOUS_UPDATES: i32 = -313;
pub(super) const EXTENDED_BUTTONS: i32 = -316;
const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();

/// Stands where a viewer asked for something that it does not get. Nobody has given it a meaning;
/// a real encoding here would change which one the server prefers.
pub(super) const NOTHING: i32 = i32::MIN;

/// Everything a server can send without its length being a riddle to [`super::rectangle`], or that
/// only says how the viewer likes it.
fn is_followed(encoding: i32) -> bool {
    let pictures = [
        RAW, COPY_RECT, RRE, CORRE, HEXTILE, ZLIB, TIGHT, ZRLE, ZYWRLE, H264, TIGHT_PNG,
    ];
    let screens = [
        DESKTOP_SIZE,
        LAST_RECT,
        POINTER_POSITION,
        CURSOR,
        X_CURSOR,
        VMWARE_CURSOR,
        DESKTOP_NAME,
        EXTENDED_DESKTOP_SIZE,
    ];
    let signs = [QEMU_POINTER_MOTION, QEMU_KEYS, QEMU_LEDS, VMWARE_LEDS];
    let messages = [XVP, FENCE, CONTINUOUS_UPDATES];
    // of quality and compression, Tight's and TurboVNC's
    let levels = matches!(encoding, -32..=-23 | -256..=-247 | -512..=-412 | -768..=-763);
    let all = [&pictures[..], &screens, &signs, &messages];
    levels || all.iter().any(|some| some.contains(&encoding))
}

/// What to offer in the place of `encoding`.
pub(super) fn offered(encoding: i32, rights: Rights) -> i32 {
    let clipboards = rights.clipboard_in && rights.clipboard_out;
    let fine = match encoding {
        // makes pointer events longer, which cannot be seen from one side alone
        EXTENDED_BUTTONS => false,
        // its messages go both ways for each direction of the clipboard
        EXTENDED_CLIPBOARD => clipboards,
        XVP => rights.input,
        other => rights.clipboard_out || is_followed(other),
    };
    if fine { encoding } else { NOTHING }
}
