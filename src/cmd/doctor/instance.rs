use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Fault, Finding, Found, Visit, words};
use crate::api::{InstanceView, InstancesView};
use crate::cmd::Exit;
use crate::model::{ConsoleKind, PowerState};

/// Finds the instance: the one that was named, or the first that runs.
pub(super) async fn look(visit: &mut Visit) -> Finding {
    let found = match visit.wanted.clone() {
        Some(name) => Some(named(visit, &name).await?),
        None => first(visit).await?,
    };
    let Some(instance) = found else {
        visit.missing = "no instance runs";
        let what = "no instance runs; what needs one is not walked";
        return Ok(Found::Nothing(what.to_owned()));
    };
    if instance.state == PowerState::Off {
        let what = format!("{} is off", instance.name);
        let change = "start it; where it is on after all, `vncgate instance show` tells which source \
                      says so";
        return Err(Fault::new(what, change));
    }
    let what = format!("{}, found by {}", instance.name, instance.source);
    visit.instance = Some(instance);
    Ok(Found::Fine(what))
}

async fn named(visit: &Visit, name: &str) -> Result<InstanceView, Fault> {
    let path = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let path = format!("/v1/instances/{path}");
    match visit.ask(Method::GET, &path, None).await {
        Ok(instance) => Ok(instance),
        // Whoever should know it may be away.
        Err(fault) if fault.exit == Exit::NotFound => {
            let all = all(visit).await?;
            let away = all.faults.first();
            Err(away.map_or_else(|| unknown(fault), |fault| words::source(fault)))
        }
        Err(fault) if fault.exit == Exit::Unreachable => Err(words::source(&fault.what)),
        Err(fault) => Err(fault),
    }
}

fn unknown(fault: Fault) -> Fault {
    let change = "name one that `vncgate instance list` shows, or tell in [compute] where to look";
    Fault {
        change: change.to_owned(),
        ..fault
    }
}

/// The first that runs and has a screen. A source that fails counts only if nothing else has one.
async fn first(visit: &Visit) -> Result<Option<InstanceView>, Fault> {
    let mut all = all(visit).await?;
    // Of what is listed by hand nobody knows whether it runs.
    let has_screen = |it: &InstanceView| {
        let mut consoles = it.consoles.iter();
        it.state != PowerState::Off && consoles.any(|it| it.kind == ConsoleKind::Vnc)
    };
    let runs = |it: &InstanceView| it.state == PowerState::Running && has_screen(it);
    let mut instances = all.instances.iter();
    let running = instances.position(runs);
    let found = running.or_else(|| all.instances.iter().position(has_screen));
    match (found, all.faults.first()) {
        (Some(at), _) => Ok(Some(all.instances.swap_remove(at))),
        (None, Some(fault)) => Err(words::source(fault)),
        (None, None) => Ok(None),
    }
}

async fn all(visit: &Visit) -> Result<InstancesView, Fault> {
    visit.ask(Method::GET, "/v1/instances", None).await
}
