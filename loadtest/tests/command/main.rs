//! The command line, against the idle server. The tests of the pipeline run it against Gridwatch.

mod failures;
mod runs;
mod support;
mod usage;
