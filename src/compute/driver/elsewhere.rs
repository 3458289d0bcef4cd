//! A compute role in another process, as one source among several.

use std::time::Duration;

use tokio::time::sleep;

use super::{BoxFuture, Driver, Ends, Fault, Logged, Met, Pictured, Survey, fault, is_meant};
use crate::compute::{Compute, ComputeError};
use crate::drain::Watch;
use crate::model::{Address, ConsoleKind, Instance, InstanceId, InstanceRef, Target};
use crate::rpc::Client;

/// The pause before it is asked again after it could not be.
const PAUSE: Duration = Duration::from_millis(500);

/// What another process's compute knows.
#[derive(Debug)]
pub struct Elsewhere {
    source: String,
    compute: Client<Compute>,
}

impl Elsewhere {
    /// The role at `address`, reached by `compute`.
    pub fn new(address: &Address, compute: Client<Compute>) -> Self {
        Self {
            source: format!("compute at {address}"),
            compute,
        }
    }

    fn fault(&self, error: ComputeError) -> Fault {
        match error {
            ComputeError::Source { fault, .. } => fault,
            other => fault(&self.source, &other),
        }
    }

    fn survey_of(&self, answer: Result<Survey, ComputeError>) -> Survey {
        answer.unwrap_or_else(|error| self.fault(error).into())
    }
}

async fn hear_of_ends(compute: Client<Compute>, ends: Ends) {
    let mut cursor = None;
    loop {
        match compute.ended(cursor).await {
            Ok(news) => {
                cursor = Some(news.cursor);
                news.items.into_iter().for_each(|ended| ends.tell(ended));
            }
            Err(_unreachable) => sleep(PAUSE).await,
        }
    }
}

impl Driver for Elsewhere {
    fn source(&self) -> &str {
        &self.source
    }

    fn start(&self, watch: &Watch, ends: &Ends) {
        let hearing = hear_of_ends(self.compute.clone(), ends.clone());
        let closing = watch.clone();
        watch.spawn_service(async move {
            tokio::select! {
                () = hearing => {}
                () = closing.closing() => {}
            }
        });
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(async { self.survey_of(self.compute.instances().await) })
    }

    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(async move {
            match self.compute.instance(wanted.clone()).await {
                Ok(instance) => Survey {
                    instances: vec![instance],
                    faults: Vec::new(),
                },
                Err(ComputeError::NoSuchInstance { .. }) => Survey::default(),
                Err(ComputeError::Ambiguous { .. }) => {
                    self.survey().await.only(|it| is_meant(it, wanted))
                }
                Err(error) => self.fault(error).into(),
            }
        })
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        Box::pin(async { self.survey_of(self.compute.claimants(target.clone()).await) })
    }

    fn meeting<'a>(&'a self, instance: &'a Instance, kind: ConsoleKind) -> BoxFuture<'a, Met> {
        Box::pin(async move {
            match self.compute.meeting(instance.id, kind).await {
                Ok(meeting) => Ok(Some(meeting)),
                Err(ComputeError::NoSuchInstance { .. }) => Ok(None),
                Err(error) => Err(self.fault(error)),
            }
        })
    }

    fn screenshot(&self, instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(async move {
            match self.compute.screenshot(InstanceRef::Id(instance)).await {
                Ok(picture) => Ok(Some(picture.into_png())),
                Err(
                    ComputeError::NoSuchInstance { .. }
                    | ComputeError::NoPicture { .. }
                    | ComputeError::Off { .. },
                ) => Ok(None),
                Err(error) => Err(self.fault(error)),
            }
        })
    }

    fn console_log(&self, instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async move {
            match self
                .compute
                .console_log(InstanceRef::Id(instance), None)
                .await
            {
                Ok(log) => Ok(Some(log.into_text().into_bytes())),
                Err(ComputeError::NoSuchInstance { .. } | ComputeError::NoLog { .. }) => Ok(None),
                Err(error) => Err(self.fault(error)),
            }
        })
    }
}
