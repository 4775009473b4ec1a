//! Requests to the router, with a sink that the test controls and a registry that is filled in
//! memory.

mod http_layer;
mod odd_requests;
mod requests;
mod sink;
mod support;
mod unknown_names;
