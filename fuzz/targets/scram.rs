//! What a SASL server says in SCRAM. Nothing may panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| vncgate::compute::driver::libvirt::sasl::fuzz_scram(bytes));
