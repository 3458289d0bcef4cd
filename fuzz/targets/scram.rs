//! What a SASL server says in SCRAM. Nothing may panic.

#[path = "../../src/compute/driver/libvirt/sasl/credentials.rs"]
mod credentials;
#[path = "../../src/compute/driver/libvirt/sasl/scram.rs"]
mod parser;

use credentials::Credentials;

pub(crate) fn run(bytes: &[u8]) {
    parser::fuzz(bytes);
}
