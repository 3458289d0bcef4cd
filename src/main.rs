//! Placeholder of the program.

fn main() {}
