//! Watches sources that tell nothing by themselves, so that other processes need not ask for all
//! they have again and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Drivers;
use super::driver::{Change, Changes, Driver, ask_all};
use crate::drain::Watch;
use crate::model::{Instance, InstanceId};

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Tells `changes` of what became of their instances. Ends with `watch`.
pub(super) fn start(drivers: Drivers, changes: Changes, watch: &Watch) {
    let closing = watch.clone();
    watch.spawn_service(async move {
        tokio::select! {
            () = observe(&drivers, &changes) => {}
            () = closing.closing() => {}
        }
    });
}

async fn observe(drivers: &Drivers, changes: &Changes) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        let _now = looks.tick().await;
        let now = look(drivers).await;
        if let Some(before) = &before {
            let differences = differences(before, &now).into_iter();
            differences.for_each(|change| changes.tell(change));
        }
        before = Some(now);
    }
}

async fn look(drivers: &Drivers) -> HashMap<InstanceId, Instance> {
    let all = drivers.now();
    let quiet = all.iter().filter(|driver| driver.wants_watching());
    let quiet: Vec<Arc<dyn Driver>> = quiet.cloned().collect();
    let survey = ask_all(&quiet, |driver| async move { driver.survey().await }).await;
    let instances = survey.instances.into_iter();
    instances.map(|instance| (instance.id, instance)).collect()
}

/// That a file is gone is no word of a hypervisor's: nothing has ended.
fn differences(
    before: &HashMap<InstanceId, Instance>,
    now: &HashMap<InstanceId, Instance>,
) -> Vec<Change> {
    let other = now.iter().filter(|(id, it)| before.get(id) != Some(it));
    let gone = before.keys().filter(|id| !now.contains_key(id));
    let all = other.map(|(id, _)| id).chain(gone);
    let change = |instance: &InstanceId| Change {
        instance: *instance,
        ended: false,
    };
    all.map(change).collect()
}
