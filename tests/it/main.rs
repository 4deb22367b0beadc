//! The promises of the crate, each as a test whose name begins with its id.

mod attaching;
mod layering;
mod lifetime;
mod smoke;
mod support;
