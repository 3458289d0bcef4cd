//! `servers`: instances as Nova's clients want to see them, as far as a hypervisor tells.

use http::{Response, StatusCode};
use regex::RegexBuilder;
use serde_json::{Value, json};

use super::fault::{Fault, SOON};
use super::{Call, extend};
use crate::compute::ComputeError;
use crate::http::{Body, json as answer};
use crate::model::{Instance, InstanceId, InstanceRef, PowerState, Role};

const INDEX: &str = "os_compute_api:servers:index";
const DETAIL: &str = "os_compute_api:servers:detail";
const SHOW: &str = "os_compute_api:servers:show";

/// The largest program that the pattern of a name may become, in bytes.
const PATTERN: usize = 64 * 1024;

/// The most servers in one answer, Nova's `max_limit`.
const PAGE: usize = 1000;

impl Call<'_> {
    /// `GET /servers`, `GET /servers/detail`
    pub(super) async fn servers(&self, detail: bool) -> Result<Response<Body>, Fault> {
        let policy = if detail { DETAIL } else { INDEX };
        self.must_be(Role::Reader, policy)?;
        if self.wants_all_projects() && self.caller.role < Role::Admin {
            return Err(Fault::forbidden(&format!("{policy}:get_all_tenants")));
        }
        let survey = self
            .api
            .compute
            .instances()
            .await
            .map_err(|error| unavailable(&error))?;
        let mut found = survey.instances;
        found.retain(|instance| self.lists(instance));
        self.filter(&mut found)?;
        found.sort_by(|a, b| (a.shown_name(), a.id).cmp(&(b.shown_name(), b.id)));
        let (page, more) = self.page(found)?;
        let servers: Vec<Value> = page.iter().map(|it| self.view(it, detail)).collect();
        let mut body = json!({ "servers": servers });
        if let (true, Some(last)) = (more, page.last()) {
            let next = json!([{ "rel": "next", "href": self.next(last, detail) }]);
            extend(&mut body, json!({ "servers_links": next }));
        }
        Ok(answer(StatusCode::OK, &body))
    }

    /// `GET /servers/{id}`
    pub(super) async fn server(&self, id: &str) -> Result<Response<Body>, Fault> {
        let instance = self.instance(id).await?;
        self.must_be(Role::Reader, SHOW)?;
        let body = json!({ "server": self.view(&instance, true) });
        Ok(answer(StatusCode::OK, &body))
    }

    /// The instance of this id, if there is one for the caller. Errors: 404, 503.
    pub(super) async fn instance(&self, id: &str) -> Result<Instance, Fault> {
        let no_such = || Fault::no_such_instance(id);
        let parsed: InstanceId = match id.parse() {
            Ok(parsed) if id.len() == 36 => parsed,
            _ => return Err(no_such()),
        };
        let instance = self.api.compute.instance(InstanceRef::Id(parsed)).await;
        let instance = instance.map_err(|error| match error {
            ComputeError::NoSuchInstance { .. } => no_such(),
            other => unavailable(&other),
        })?;
        let seen = self.caller.sees(instance.project_id());
        seen.then_some(instance).ok_or_else(no_such)
    }

    /// Whether a list holds it: an administrator's of one project shows the others' only if asked.
    fn lists(&self, instance: &Instance) -> bool {
        let own = self.caller.project.as_deref();
        self.wants_all_projects() || own.is_none() || own == instance.project_id()
    }

    fn wants_all_projects(&self) -> bool {
        let asked = self
            .parameter("all_tenants")
            .or_else(|| self.parameter("all_projects"));
        asked.is_some_and(|value| {
            !matches!(&*value.to_ascii_lowercase(), "0" | "false" | "f" | "no")
        })
    }

    fn filter(&self, found: &mut Vec<Instance>) -> Result<(), Fault> {
        if let Some(pattern) = self.parameter("name").filter(|name| !name.is_empty()) {
            let built = RegexBuilder::new(pattern)
                .case_insensitive(true)
                .size_limit(PATTERN)
                .build();
            let pattern =
                built.map_err(|_| Fault::bad_request("Invalid regular expression in name"))?;
            found.retain(|instance| pattern.is_match(instance.shown_name()));
        }
        if let Some(wanted) = self.parameter("status") {
            found.retain(|instance| status(instance).eq_ignore_ascii_case(wanted));
        }
        if let Some(wanted) = self.parameter("uuid") {
            found.retain(|instance| instance.id.to_string() == wanted);
        }
        let project = self
            .parameter("project_id")
            .or_else(|| self.parameter("tenant_id"));
        if let (Some(wanted), true) = (project, self.caller.role == Role::Admin) {
            found.retain(|instance| instance.project_id() == Some(wanted));
        }
        if self
            .parameter("deleted")
            .is_some_and(|it| matches!(&*it.to_ascii_lowercase(), "true" | "1"))
        {
            found.clear();
        }
        Ok(())
    }

    /// The servers of one answer, and whether there are more behind them.
    fn page(&self, mut all: Vec<Instance>) -> Result<(Vec<Instance>, bool), Fault> {
        if let Some(marker) = self.parameter("marker") {
            let at = all
                .iter()
                .position(|instance| instance.id.to_string() == marker);
            let at =
                at.ok_or_else(|| Fault::bad_request(format!("marker [{marker}] not found")))?;
            all.drain(..=at);
        }
        let limit = match self.parameter("limit") {
            None => PAGE,
            Some(text) => text.parse().map_err(|_| {
                Fault::bad_request(format!(
                    "Invalid input for query parameters limit. Value: {text}. '{text}' does not \
                     match '^[0-9]*$'"
                ))
            })?,
        };
        let more = all.len() > limit.min(PAGE);
        all.truncate(limit.min(PAGE));
        Ok((all, more && limit > 0))
    }

    fn next(&self, last: &Instance, detail: bool) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.query.iter().filter(|(name, _)| name != "marker") {
            query.append_pair(name, value);
        }
        query.append_pair("marker", &last.id.to_string());
        let path = if detail { "servers/detail" } else { "servers" };
        format!("{}{}/{path}?{}", self.own_url, self.dialect, query.finish())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter().filter(|(key, _)| key == name);
        found.next_back().map(|(_, value)| value.as_str())
    }

    fn view(&self, instance: &Instance, detail: bool) -> Value {
        let id = instance.id;
        let mut server = json!({
            "id": id,
            "name": instance.shown_name(),
            "links": [
                { "rel": "self", "href": format!("{}{}/servers/{id}", self.own_url, self.dialect) },
                { "rel": "bookmark", "href": format!("{}/servers/{id}", self.own_url) },
            ],
        });
        if detail {
            extend(&mut server, state(instance));
            extend(&mut server, unknown());
            extend(&mut server, json!({ "flavor": self.flavor(instance) }));
        }
        if detail && self.caller.role == Role::Admin {
            extend(&mut server, place(instance));
        }
        server
    }

    /// By name; from 2.47 on a server holds its flavor, before it names one.
    fn flavor(&self, instance: &Instance) -> Value {
        let name = instance.flavor.as_deref().unwrap_or_default();
        if self.version.1 < 47 {
            return json!({ "id": name, "links": [] });
        }
        json!({ "original_name": name, "vcpus": 0, "ram": 0, "disk": 0, "ephemeral": 0, "swap": 0,
            "extra_specs": {} })
    }
}

/// What a hypervisor tells of an instance.
fn state(instance: &Instance) -> Value {
    let (vm, power) = match instance.state {
        PowerState::Running => ("active", 1),
        PowerState::Off => ("stopped", 4),
        PowerState::Unknown => ("active", 0),
    };
    let owner = instance.owner.clone().unwrap_or_default();
    json!({
        "status": status(instance),
        "tenant_id": owner.project_id.unwrap_or_default(),
        "user_id": owner.user_id.unwrap_or_default(),
        "OS-EXT-STS:vm_state": vm,
        "OS-EXT-STS:power_state": power,
        "OS-EXT-STS:task_state": null,
    })
}

fn status(instance: &Instance) -> &'static str {
    match instance.state {
        PowerState::Running => "ACTIVE",
        PowerState::Off => "SHUTOFF",
        PowerState::Unknown => "UNKNOWN",
    }
}

/// What clients look for and no hypervisor tells: there, and empty.
fn unknown() -> Value {
    json!({
        "metadata": {},
        "image": "",
        "addresses": {},
        "hostId": "",
        "created": null,
        "updated": null,
        "accessIPv4": "",
        "accessIPv6": "",
        "config_drive": "",
        "key_name": null,
        "progress": 0,
        "OS-DCF:diskConfig": "AUTO",
        "OS-EXT-AZ:availability_zone": "",
        "OS-SRV-USG:launched_at": null,
        "OS-SRV-USG:terminated_at": null,
        "os-extended-volumes:volumes_attached": [],
    })
}

/// What administrators see.
fn place(instance: &Instance) -> Value {
    json!({
        "OS-EXT-SRV-ATTR:host": instance.source,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": instance.source,
        "OS-EXT-SRV-ATTR:instance_name": instance.name,
    })
}

/// The hypervisors cannot be asked: that is no fault of the request's, and may be better soon.
fn unavailable(error: &ComputeError) -> Fault {
    Fault::unavailable(error.to_string(), SOON)
}
