//! Where grants are kept, by the hash of their token.

mod claim;
mod memory;

pub(in crate::auth) use claim::Claim;
pub(in crate::auth) use memory::Memory;
