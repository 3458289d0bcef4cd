//! PROXY headers of both versions: what is read is read to the header's end and no further, and a
//! parser of the whole says the same as one fed from a stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vncgate::http::announcement::{parse_binary, parse_line, read_announcement};

fuzz_target!(|bytes: &[u8]| {
    let _line = parse_line(bytes);
    if let [command, family, rest @ ..] = bytes {
        let _binary = parse_binary(*command, *family, rest);
    }
    let mut left = bytes;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let read = runtime.expect("a runtime").block_on(read_announcement(&mut left));
    if let Ok(announced) = read {
        let header = &bytes[..bytes.len() - left.len()];
        match header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
            Some([command, family, _, _, rest @ ..]) => {
                assert_eq!(parse_binary(*command, *family, rest), Some(announced));
            }
            Some(_) => panic!("a header without a length"),
            None => assert_eq!(parse_line(header), Some(announced)),
        }
    }
});
