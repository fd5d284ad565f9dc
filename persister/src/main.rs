//! persister binary.
fn main() {}
