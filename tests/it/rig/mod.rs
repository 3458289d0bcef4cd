//! The rig: the real program, and the real things it is put between.

pub(crate) mod browser;
pub(crate) mod cell;
pub(crate) mod certificates;
pub(crate) mod deployment;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod keystone;
pub(crate) mod libvirtd;
pub(crate) mod mariadb;
pub(crate) mod mock;
pub(crate) mod nova_api;
pub(crate) mod openstack;
pub(crate) mod peers;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod qemu;
pub(crate) mod redis;
pub(crate) mod rfb;
pub(crate) mod seed;
pub(crate) mod tls;
pub(crate) mod vencrypt;
pub(crate) mod wait;
pub(crate) mod ws;
pub(crate) mod xml;
pub(crate) mod xvnc;
