//! The commands about the model.

use clap::{Args, Subcommand};

use super::options::{DatabaseUrl, QueryUrl};

#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(subcommand)]
    pub command: DevicesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Register devices with their metrics. Registering again is safe: a stored unit is kept, and
    /// nothing is registered if one differs from the given unit
    Add {
        #[command(flatten)]
        database: DatabaseUrl,
        /// External ids of the devices
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
        /// A metric, with its unit after the last colon: active_power:W. A metric that has a colon
        /// in its name and no unit ends with a colon. Repeat for several metrics
        #[arg(long = "metric", required = true, value_name = "METRIC[:UNIT]")]
        metrics: Vec<String>,
    },
    /// List the registered devices and their metrics
    List {
        #[command(flatten)]
        database: DatabaseUrl,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Components {
    #[command(subcommand)]
    pub command: ComponentsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ComponentsCommand {
    /// List the components
    List(ListComponents),
}

#[derive(Debug, Args)]
pub(crate) struct ListComponents {
    /// Only components of this kind, such as station
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only components whose name has this text
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    #[command(flatten)]
    pub query: QueryUrl,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
