//! PROXY headers of both versions: what is read is read to the header's end and no further, and a
//! parser of the whole says the same as one fed from a stream.

use tokio::runtime::{Builder, Runtime};

#[path = "../../src/http/announcement.rs"]
mod parser;

use parser::{parse_binary, parse_line, read_announcement};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
}

pub(crate) fn run(bytes: &[u8]) {
    let _line = parse_line(bytes);
    if let [command, family, rest @ ..] = bytes {
        let _binary = parse_binary(*command, *family, rest);
    }
    let mut left = bytes;
    let read = RUNTIME.with(|runtime| runtime.block_on(read_announcement(&mut left)));
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
}
