//! The pipeline end to end: the real binary, real servers, real faults.

mod commands;
mod exactly_once;
mod faults;
mod http;
mod load;
mod registry;
mod shapes;
mod shutdown;
mod support;
mod way;
