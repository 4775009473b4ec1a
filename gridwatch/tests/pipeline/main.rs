//! The pipeline end to end: the real binary, real servers, real faults.

mod architecture;
mod books;
mod commands;
mod data_flow;
mod deployment_modes;
mod exactly_once;
mod http_requests;
mod import;
mod load_test;
mod model;
mod monitoring;
mod negative_controls;
mod openapi;
mod queries_document;
mod readme;
mod reads;
mod registry;
mod rollups;
mod server_faults;
mod settings;
mod shutdown;
mod support;
mod tls;
