//! What a QEMU's monitor answers. Nothing may panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| vncgate::compute::driver::fuzz_qmp(bytes));
