use std::sync::Arc;

use super::{DEMO, StartError};
use crate::compute::driver::libvirt::sasl::Credentials;
use crate::compute::driver::libvirt::transport::Uri;
use crate::compute::driver::libvirt::{self, Libvirt};
use crate::compute::driver::{Directory, Discover, Driver, Entry, Fixed, Qmp};
use crate::config::{Config, FixedInstance, Hypervisor};
use crate::demo::Demo;
use crate::model::{Address, ConsoleKind, Host, Security, Target};

/// Demo and `--target` first, then what the config lists, then what the machine has.
pub(super) fn drivers(
    config: &Config,
    demo: Option<&Demo>,
    target: Option<&Address>,
) -> Result<Vec<Box<dyn Driver>>, StartError> {
    let mut drivers: Vec<Box<dyn Driver>> = Vec::new();
    let demo = demo.map(|demo| ("demo", entry(DEMO, demo.address().into())));
    let given = target.map(|target| ("command line", entry(&target.to_string(), target.clone())));
    let alone = demo.is_some() || given.is_some();
    for (source, entry) in demo.into_iter().chain(given) {
        drivers.push(Box::new(Fixed::new(source, vec![entry])?));
    }
    if !config.compute.instance.is_empty() {
        let entries = config.compute.instance.iter().map(listed_entry).collect();
        drivers.push(Box::new(Fixed::new("config", entries)?));
    }
    for host in hypervisors(config)? {
        drivers.push(Box::new(Libvirt::new(host)));
    }
    for path in &config.compute.xml {
        let host = config.compute.address.clone();
        drivers.push(Box::new(Directory::new(path.clone(), host)));
    }
    for path in &config.compute.qmp {
        let host = config.compute.address.clone();
        drivers.push(Box::new(Qmp::new(path.clone(), host)));
    }
    if config
        .compute
        .discover
        .unwrap_or_else(|| config.discovers() && !alone)
    {
        drivers.push(Box::new(Discover::new()));
    }
    Ok(drivers)
}

/// The settings of all hypervisors. Errors: `Host`.
pub(super) fn hypervisors(config: &Config) -> Result<Vec<libvirt::Settings>, StartError> {
    let checked = |host: &Hypervisor| {
        let settings = hypervisor(host, &config.compute.address);
        settings.map_err(|why| StartError::Host {
            name: host.name.clone(),
            why,
        })
    };
    config.compute.host.iter().map(checked).collect()
}

/// Reads the password's file, once.
fn hypervisor(host: &Hypervisor, address: &Host) -> Result<libvirt::Settings, String> {
    let uri: Uri = host.uri.parse().map_err(|bad| format!("uri: {bad}"))?;
    let far = uri.host().cloned();
    let credentials = match (&host.user, &host.password_file) {
        (Some(user), Some(file)) => {
            let read = Credentials::read(user, file);
            Some(Arc::new(read.map_err(|bad| bad.to_string())?))
        }
        _ => None,
    };
    Ok(libvirt::Settings {
        name: host.name.clone(),
        address: host
            .address
            .clone()
            .or(far)
            .unwrap_or_else(|| address.clone()),
        uri,
        readonly: host.readonly,
        credentials,
        optional: false,
        security: host.vnc.clone(),
        passwords: host.passwords,
    })
}

fn entry(name: &str, address: Address) -> Entry {
    let kind = ConsoleKind::Vnc;
    Entry {
        id: None,
        name: name.to_owned(),
        kind,
        target: address.into(),
        project: None,
        security: Security::default(),
    }
}

fn listed_entry(instance: &FixedInstance) -> Entry {
    let FixedInstance {
        id,
        name,
        address,
        internal_access_path,
        project,
        kind,
        vnc,
    } = instance.clone();
    Entry {
        id,
        name,
        kind,
        target: Target {
            internal_access_path,
            ..address.into()
        },
        project,
        security: vnc,
    }
}
