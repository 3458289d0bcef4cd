//! Headers: the security policy that goes out with every page, and the conditions that come in.
//!
//! Pure. Content Security Policy Level 3, RFC 9110 sections 12.5.3 and 13.1.2.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::BadPages;

/// The headers every response carries.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    content: HeaderValue,
}

/// Everything from here, nothing inline. `'self'` in connect-src covers ws and wss of our own.
const STRICT: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; form-action 'none'; \
    base-uri 'none'; frame-ancestors";

/// For the pages noVNC ships, tried with 1.3.0: `vnc_lite.html` holds its script and style, and
/// the bell is a sound. They follow `host` and `port` of their address anywhere; connect-src does
/// not.
const LENIENT: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; \
    font-src 'self'; media-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors";

const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

impl Policy {
    pub(super) fn strict(frame_ancestors: &[String]) -> Result<Self, BadPages> {
        Self::new(STRICT, frame_ancestors)
    }

    pub(super) fn lenient(frame_ancestors: &[String]) -> Result<Self, BadPages> {
        Self::new(LENIENT, frame_ancestors)
    }

    fn new(rest: &str, frame_ancestors: &[String]) -> Result<Self, BadPages> {
        if let Some(bad) = frame_ancestors.iter().find(|source| !is_source(source)) {
            return Err(BadPages::FrameAncestor(bad.clone()));
        }
        let ancestors = match frame_ancestors {
            [] => "'self'".to_owned(),
            named => named.join(" "),
        };
        let content = HeaderValue::from_str(&format!("{rest} {ancestors}"));
        let content = content.map_err(|_| BadPages::FrameAncestor(ancestors))?;
        Ok(Self { content })
    }

    /// No Cross-Origin-Opener-Policy: it would cut the tie by which a dashboard finds the window
    /// it opened for a console again, and the page hears no messages that it could protect from.
    pub(super) fn apply(&self, fields: &mut HeaderMap) {
        fields.insert(header::CONTENT_SECURITY_POLICY, self.content.clone());
        fields.insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        fields.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        let none = HeaderValue::from_static(
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        );
        fields.insert(PERMISSIONS, none);
    }
}

/// A CSP source expression that can stand in a directive without ending it.
fn is_source(source: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.*-_[]".contains(&byte);
    ["'self'", "'none'"].contains(&source) || (!source.is_empty() && source.bytes().all(plain))
}

/// Whether gzip is welcome: named, or covered by `*`, and not weighed 0.
pub(super) fn accepts_gzip(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::ACCEPT_ENCODING).iter();
    let listed: Vec<(String, bool)> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(coding)
        .collect();
    let welcome = |name: &str| {
        listed
            .iter()
            .find(|(each, _)| each == name)
            .map(|(_, yes)| *yes)
    };
    welcome("gzip").or_else(|| welcome("*")).unwrap_or(false)
}

/// The name of a coding, and whether it may be used.
fn coding(text: &str) -> (String, bool) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let zero = weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
    (name, !zero)
}

/// Whether a client already holds the file, compared weakly.
pub(super) fn matches(known: &[HeaderValue], etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let wanted = opaque(etag);
    let texts = known.iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == wanted)
}
