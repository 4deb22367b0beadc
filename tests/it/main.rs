//! The promises of the crate, each as a test whose name begins with its id.

mod attaching;
mod flight;
mod foreign;
mod layering;
mod lifetime;
mod rejected;
mod smoke;
mod superseded;
mod support;
mod wishes;
