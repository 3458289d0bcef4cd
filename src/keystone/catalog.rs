use std::collections::BTreeSet;

use serde::Deserialize;
use url::Url;

use crate::config::Interface;

/// What Nova is called in a catalog.
const COMPUTE: &str = "compute";

/// One service of the catalog that comes with a token.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    r#type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Deserialize)]
struct Endpoint {
    interface: String,
    region_id: Option<String>,
    /// The same, as older releases call it.
    region: Option<String>,
    url: String,
}

impl Endpoint {
    fn region(&self) -> Option<&str> {
        self.region_id.as_deref().or(self.region.as_deref())
    }
}

/// The compute service's endpoint. Errors: what is missing, and what there is.
pub(super) fn compute(
    catalog: &[Entry],
    interface: Interface,
    region: Option<&str>,
) -> Result<Url, String> {
    let services = catalog.iter().filter(|entry| entry.r#type == COMPUTE);
    let endpoints: Vec<&Endpoint> = services.flat_map(|entry| &entry.endpoints).collect();
    let fitting = endpoints
        .iter()
        .filter(|one| one.interface == interface.to_string())
        .filter(|one| region.is_none_or(|region| one.region() == Some(region)));
    let fitting: Vec<&&Endpoint> = fitting.collect();
    let regions: BTreeSet<Option<&str>> = fitting.iter().map(|one| one.region()).collect();
    if regions.len() > 1 {
        let regions: Vec<&str> = regions.into_iter().flatten().collect();
        return Err(format!(
            "there is a compute service in each of the regions {}; set keystone.region",
            regions.join(", ")
        ));
    }
    let Some(endpoint) = fitting.first() else {
        return Err(missing(&endpoints, interface, region));
    };
    let url = Url::parse(&endpoint.url).ok();
    url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
        .ok_or_else(|| {
            format!(
                "the compute service's endpoint `{}` is no URL",
                endpoint.url
            )
        })
}

fn missing(endpoints: &[&Endpoint], interface: Interface, region: Option<&str>) -> String {
    let region = region.map_or_else(String::new, |region| format!(" in region {region}"));
    let there: BTreeSet<String> = endpoints
        .iter()
        .map(|one| {
            let region = one.region().unwrap_or("no region");
            format!("{} in {region}", one.interface)
        })
        .collect();
    let there: Vec<String> = there.into_iter().collect();
    let there = if there.is_empty() {
        "it has none at all".to_owned()
    } else {
        format!("it has {}", there.join(", "))
    };
    format!("the catalog has no {interface} endpoint of a compute service{region}; {there}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalog() -> Vec<Entry> {
        let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region_id": region, "region": region, "url": url, "id": "e"});
        serde_json::from_value(json!([
            {"type": "identity", "name": "keystone", "id": "1", "endpoints": [
                endpoint("public", "one", "http://k/v3"),
            ]},
            {"type": "compute", "name": "nova", "id": "2", "endpoints": [
                endpoint("public", "one", "http://n1/v2.1"),
                endpoint("internal", "one", "http://n1:8774/v2.1"),
                endpoint("public", "two", "http://n2/v2.1"),
            ]},
        ]))
        .unwrap()
    }

    #[test]
    fn region_and_interface_choose_the_endpoint() {
        let found = |interface, region| compute(&catalog(), interface, region).map(String::from);
        let ok = |url: &str| Ok(url.to_owned());
        assert_eq!(found(Interface::Public, Some("two")), ok("http://n2/v2.1"));
        assert_eq!(found(Interface::Internal, None), ok("http://n1:8774/v2.1"));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_there_is() {
        let refusal = |interface, region| compute(&catalog(), interface, region).unwrap_err();
        let two = refusal(Interface::Public, None);
        assert!(
            two.contains("regions one, two; set keystone.region"),
            "{two}"
        );
        let none = refusal(Interface::Admin, Some("two"));
        assert_eq!(
            none,
            "the catalog has no admin endpoint of a compute service in region two; it has internal \
             in one, public in one, public in two"
        );
        let nothing = compute(&[], Interface::Public, None).unwrap_err();
        assert!(nothing.ends_with("it has none at all"), "{nothing}");
    }
}
