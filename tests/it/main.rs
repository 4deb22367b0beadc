//! The promises of the crate, each as a test whose name begins with its id.

mod attaching;
mod bad_input;
mod bad_parts;
mod budget;
mod digirunner;
mod errors;
mod flight;
mod foreign;
mod judged;
mod keeping;
mod layering;
mod lifetime;
mod login;
mod looked_into;
mod person;
mod rejected;
mod signals;
mod smoke;
mod store_contract;
mod superseded;
mod support;
mod token_request;
mod token_retry;
mod waiting;
mod wire_api;
mod wishes;
