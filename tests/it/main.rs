//! The promises of the crate, each as a test whose name begins with its id.

mod layering;
mod smoke;
mod support;
