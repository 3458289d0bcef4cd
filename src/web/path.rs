//! A request path as the names of folders and a file, or nothing.
//!
//! Pure. Decodes percent signs once and refuses whatever two readers could understand in two
//! ways, rather than tidying it up: CVE-2021-3654 and its incomplete fix were about tidying.

use percent_encoding::percent_decode_str;

/// The relative path named, with `/` between its parts. `None`: not one that is served.
///
/// Refused are empty parts (so `//` anywhere, and a slash at the end), parts that begin with a
/// dot, and parts that hold a slash, backslash, colon or control character once decoded.
pub(super) fn relative(path: &str) -> Option<String> {
    let parts = path.strip_prefix('/')?.split('/').map(part);
    let parts: Option<Vec<String>> = parts.collect();
    parts.map(|parts| parts.join("/"))
}

fn part(raw: &str) -> Option<String> {
    let text = percent_decode_str(raw).decode_utf8().ok()?;
    let odd = |c: char| c.is_control() || ['/', '\\', ':'].contains(&c);
    let refused = text.is_empty() || text.starts_with('.') || text.contains(odd);
    (!refused).then(|| text.into_owned())
}
