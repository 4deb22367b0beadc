//! The promises of the crate, each as a test whose name begins with its id.

#![allow(unreachable_pub)] // a binary: nothing of it can be reached

mod accounts;
mod attaching;
mod bad_input;
mod bad_parts;
mod budget;
mod client_assertion;
mod digirunner;
mod discovery;
mod ecosystem;
mod errors;
mod fenced;
mod file_processes;
mod file_session;
mod file_store;
mod flight;
mod foreign;
mod grants;
mod hostile;
mod interleavings;
mod judged;
mod keeping;
#[cfg(feature = "keyring")]
mod keyring_store;
mod layering;
mod lifetime;
mod login;
mod looked_into;
mod mtls;
mod oidc_provider;
mod person;
mod processes;
mod providers;
mod quirks;
mod redis_store;
mod regressions;
mod rejected;
mod resources;
mod revocation;
mod secrets;
mod security_md;
mod signals;
mod simulated;
mod simulation;
mod store_contract;
mod store_review;
mod superseded;
mod support;
mod token_request;
mod token_retry;
mod unreadable;
mod waiting;
mod wire_api;
mod wishes;
