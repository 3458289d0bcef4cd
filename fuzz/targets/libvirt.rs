//! What a libvirt daemon sends: messages one behind the other, and the values in them. Nothing may
//! panic, nothing may grow beyond the bytes that came, and a message reads back as it was.

#[path = "../../src/compute/driver/libvirt/wire/error.rs"]
mod error;
#[path = "../../src/compute/driver/libvirt/wire/frame.rs"]
mod frame;
#[path = "../../src/compute/driver/libvirt/wire/procedure.rs"]
mod procedure;
#[path = "../../src/compute/driver/libvirt/wire/xdr.rs"]
mod xdr;

use error::Remote;
use frame::decode;
use xdr::Decoder;

pub(crate) fn run(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok((frame, behind)) = decode(rest) {
        let whole = &rest[..rest.len() - behind.len()];
        assert_eq!(frame.header.encode(&frame.payload), whole);
        let payload = &frame.payload;
        assert!(Remote::decode(payload).message.len() <= payload.len() + 64);
        let mut values = Decoder::new(payload);
        if let Ok(texts) = values.list(1 << 20, |it| it.optional(Decoder::string)) {
            assert!(texts.len() * 4 <= payload.len());
        }
        rest = behind;
    }
}
