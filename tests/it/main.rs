//! The program as its users meet it: the real binary between real browsers, VNC servers and
//! virtual machines.
//!
//! One module per theme; `rig` holds what they share. Nothing here calls into the crate.

#[cfg(test)]
mod abuse;
#[cfg(test)]
mod activation;
#[cfg(test)]
mod api;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod consoles;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod directory;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod files;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod keystone;
#[cfg(test)]
mod libvirt;
#[cfg(test)]
mod libvirt_transport;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod log;
#[cfg(test)]
mod migrate;
#[cfg(test)]
mod nova;
#[cfg(test)]
mod nova_api_source;
#[cfg(test)]
mod nova_db;
#[cfg(test)]
mod openstack;
#[cfg(test)]
mod openstack_rig;
#[cfg(test)]
mod openstack_users;
#[cfg(test)]
mod origins;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod partition;
#[cfg(test)]
mod preamble;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod qmp;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod rights_live;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod rounds;
#[cfg(test)]
mod rounds_hosts;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod security;
#[cfg(test)]
mod serial;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod spice;
#[cfg(test)]
mod standalone;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod tls_viewer;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod topologies;
#[cfg(test)]
mod units;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upgrade_far;
#[cfg(test)]
mod websockify_file;
