//! What a QEMU shows right now, as PNG.
//!
//! QEMU writes it into memory that we lend it by descriptor (`add-fd`), so that neither needs to
//! read or write the other's files, whatever users or containers the two are in. Memory rather
//! than a pipe, because QEMU waits for its writes: a slow reader would stop the guest.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::MemfdFlags;
use serde_json::json;

use super::monitor::{Monitor, Trouble};

/// The set our descriptor goes into: one for all pictures, since QEMU keeps empty sets until it
/// ends. Far from the small numbers that QEMU and people take; the newest descriptor in it counts.
const SET: u32 = 0x766e_6367;

/// A screen of 4K in noise is 25 MB.
const MAX_PICTURE: u64 = 64 << 20;

/// How a PNG file begins and ends (RFC 2083 sections 3.1 and 4.1.4).
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const END: &[u8] = b"IEND\xae\x42\x60\x82";

/// Takes the picture of the first display. Errors: `Refused` by a QEMU before 7.1, which knows no
/// PNG.
pub(super) async fn take(monitor: &mut Monitor) -> Result<Vec<u8>, Trouble> {
    let name = "vncgate-picture";
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut memory = File::from(memory);
    // QEMU takes only a descriptor that is open for writing alone.
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let lent = File::options().write(true).open(path)?;
    let into = ("add-fd", json!({"fdset-id": SET}));
    let added = monitor.lend(&into, lent.as_fd()).await?;
    let place = format!("/dev/fdset/{SET}");
    let shot = ("screendump", json!({"filename": place, "format": "png"}));
    let taken = monitor.ask(&[shot]).await;
    let fd = added.get("fd").cloned().unwrap_or_default();
    let back = ("remove-fd", json!({"fdset-id": SET, "fd": fd}));
    let returned = monitor.ask(&[back]).await;
    taken?;
    returned?;
    let mut picture = Vec::new();
    memory.rewind()?;
    memory.take(MAX_PICTURE).read_to_end(&mut picture)?;
    if !(picture.starts_with(SIGNATURE) && picture.ends_with(END)) {
        return Err(Trouble::Senseless("screendump"));
    }
    Ok(picture)
}
