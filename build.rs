//! Placeholder of the build script.

fn main() {}
