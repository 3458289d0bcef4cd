//! Microversions: which one a request asks for, and how an answer says which one it speaks.

use std::fmt;

use http::header::VARY;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::fault::Fault;

/// A microversion, `MAJOR.MINOR`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Microversion(pub(super) u32, pub(super) u32);

/// The oldest, and what is spoken where nobody asks.
pub(super) const OLDEST: Microversion = Microversion(2, 1);

/// The newest.
pub(super) const NEWEST: Microversion = Microversion(2, 99);

const STANDARD: HeaderName = HeaderName::from_static("openstack-api-version");
const NOVAS_OWN: HeaderName = HeaderName::from_static("x-openstack-nova-api-version");

/// The name that the standard header has for this API.
const SERVICE: &str = "compute";

/// What the headers of a request ask for.
///
/// The standard header lists services, scanned from its end; only without an entry for this one
/// does Nova's own count. Errors: 400 for what is no version; the 406 is [`admit`]'s.
pub(super) fn requested(headers: &HeaderMap) -> Result<Microversion, Fault> {
    let standard = words(headers, &STANDARD);
    let asked = standard.iter().rev().find_map(|word| {
        let (service, version) = word.split_once(char::is_whitespace)?;
        service
            .eq_ignore_ascii_case(SERVICE)
            .then(|| version.trim())
    });
    let own = words(headers, &NOVAS_OWN);
    match asked.or_else(|| own.last().copied()) {
        None => Ok(OLDEST),
        Some("latest") => Ok(NEWEST),
        Some(text) => parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Fault::bad_request(format!(
                "API Version String {shown} is of invalid format. Must be of format \
                 MajorNum.MinorNum."
            ))
        }),
    }
}

/// Whether it is spoken here. Errors: 406.
pub(super) fn admit(version: Microversion) -> Result<(), Fault> {
    if (OLDEST..=NEWEST).contains(&version) {
        return Ok(());
    }
    let why = format!(
        "Version {version} is not supported by the API. Minimum is {OLDEST} and maximum is \
         {NEWEST}."
    );
    Err(Fault::new(StatusCode::NOT_ACCEPTABLE, why))
}

/// Says in an answer which version it speaks, and that others would get another.
pub(super) fn tell(version: Microversion, headers: &mut HeaderMap) {
    for (name, value) in [
        (STANDARD, format!("{SERVICE} {version}")),
        (NOVAS_OWN, version.to_string()),
    ] {
        if let Ok(vary) = HeaderValue::from_str(match &name {
            name if *name == STANDARD => "OpenStack-API-Version",
            _ => "X-OpenStack-Nova-API-Version",
        }) {
            let _more = headers.append(VARY, vary);
        }
        if let Ok(value) = HeaderValue::from_str(&value) {
            let _new = headers.insert(name, value);
        }
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).into_iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .collect()
}

/// `^([1-9]\d*)\.([1-9]\d*|0)$`
fn parse(text: &str) -> Option<Microversion> {
    let (major, minor) = text.split_once('.')?;
    let plain = |digits: &str| {
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        (number && (digits == "0" || !digits.starts_with('0'))).then_some(())?;
        digits.parse().ok()
    };
    let major = plain(major).filter(|major| *major > 0)?;
    Some(Microversion(major, plain(minor)?))
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&HeaderName, &str)]) -> Result<Microversion, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let _more = headers.append((*name).clone(), HeaderValue::from_str(value).unwrap());
        }
        requested(&headers).map_err(|fault| fault.message.into_owned())
    }

    #[test]
    fn the_standard_header_counts_before_novas_own() {
        let newer = Microversion(2, 31);
        assert_eq!(asked(&[]), Ok(OLDEST));
        assert_eq!(asked(&[(&STANDARD, "compute 2.31")]), Ok(newer));
        assert_eq!(asked(&[(&STANDARD, "Compute latest")]), Ok(NEWEST));
        assert_eq!(asked(&[(&NOVAS_OWN, "2.1, 2.31")]), Ok(newer));
        assert_eq!(
            asked(&[(&STANDARD, "volume 3.1"), (&NOVAS_OWN, "2.31")]),
            Ok(newer)
        );
        assert_eq!(
            asked(&[(&STANDARD, "compute 2.31"), (&NOVAS_OWN, "2.6")]),
            Ok(newer)
        );
        assert_eq!(
            asked(&[(&STANDARD, "compute 2.6, compute 2.31, volume 3.9")]),
            Ok(newer)
        );
    }

    #[test]
    fn what_is_no_version_is_refused_with_the_text() {
        for text in [
            "2", "2.01", "0.1", "2.x", "2.1.0", "-2.1", "02.1", "2.", "+2.1",
        ] {
            let refusal = asked(&[(&STANDARD, &format!("compute {text}"))]).unwrap_err();
            let expected = format!("API Version String {text} is of invalid format.");
            assert!(refusal.starts_with(&expected), "{refusal}");
        }
    }

    #[test]
    fn versions_outside_the_range_are_not_acceptable() {
        assert!(admit(OLDEST).is_ok() && admit(NEWEST).is_ok());
        for version in [Microversion(2, 0), Microversion(2, 100), Microversion(3, 1)] {
            let fault = admit(version).unwrap_err();
            assert_eq!(fault.status, StatusCode::NOT_ACCEPTABLE);
            assert!(
                fault
                    .message
                    .contains("Minimum is 2.1 and maximum is 2.99.")
            );
        }
    }
}
