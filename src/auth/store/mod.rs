//! Where grants are kept, by the hash of their token.

mod memory;

pub(super) use memory::Memory;
