//! The commands about the model.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::DAY;
use super::options::{DatabaseUrl, QueryUrl};
use crate::config::values;

/// Where documents come from, and how they are printed.
#[derive(Debug, Args)]
pub(crate) struct OutputOptions {
    #[command(flatten)]
    pub query: QueryUrl,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Printing again and again.
#[derive(Debug, Args)]
pub(crate) struct WatchOption {
    /// Print again every 5 s, or with --watch=TIME at another interval, until Ctrl-C
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5s",
        value_parser = |text: &str| values::time(text, Duration::from_millis(100)..=DAY)
    )]
    pub watch: Option<Duration>,
}

/// Filters by place and owner.
#[derive(Debug, Args)]
pub(crate) struct PlaceFilters {
    /// Only what is in the subtree of this component
    #[arg(long, value_name = "ID")]
    pub within: Option<String>,
    /// The subtree as it was at this time
    #[arg(long, value_name = "TIME", requires = "within")]
    pub at: Option<String>,
    /// Only what this customer owns
    #[arg(long, value_name = "ID")]
    pub customer: Option<String>,
    /// Only what is in this box in degrees, such as 8.4,49.9,8.9,50.2
    #[arg(
        id = "box",
        long = "box",
        value_name = "WEST,SOUTH,EAST,NORTH",
        allow_hyphen_values = true
    )]
    pub bounding_box: Option<String>,
    /// Only what is within --radius of this point in degrees, such as 50.1,8.7
    #[arg(long, value_name = "LATITUDE,LONGITUDE", allow_hyphen_values = true)]
    pub near: Option<String>,
    /// Distance from --near in metres
    #[arg(long, value_name = "METRES")]
    pub radius: Option<String>,
}

/// The order of a list.
#[derive(Debug, Args)]
pub(crate) struct SortOptions {
    /// Order: created_at, or name and updated_at of components, or device of devices
    #[arg(long, value_name = "FIELD")]
    pub sort: Option<String>,
    /// asc or desc [default: asc]
    #[arg(long, value_name = "ORDER")]
    pub order: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(subcommand)]
    pub command: DevicesCommand,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a process has one of them")]
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
    /// List the devices, their health and their metrics
    List(ListDevices),
    /// Show a device
    Show(ShowDevice),
}

#[derive(Debug, Args)]
pub(crate) struct ListDevices {
    /// Only devices of this type
    #[arg(id = "type", long = "type", value_name = "ID")]
    pub device_type: Option<String>,
    /// Only devices that are active, or not: true or false
    #[arg(long, value_name = "BOOLEAN")]
    pub active: Option<String>,
    /// Only devices with this health: ok, deteriorated, unreachable or unknown
    #[arg(long, value_name = "HEALTH")]
    pub health: Option<String>,
    /// Only devices whose name or external id has this text
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    #[command(flatten)]
    pub place: PlaceFilters,
    #[command(flatten)]
    pub sort: SortOptions,
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(flatten)]
    pub watch: WatchOption,
}

#[derive(Debug, Args)]
pub(crate) struct ShowDevice {
    /// External id of the device
    #[arg(value_name = "DEVICE")]
    pub device: String,
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(flatten)]
    pub watch: WatchOption,
}

#[derive(Debug, Args)]
pub(crate) struct Components {
    #[command(subcommand)]
    pub command: ComponentsCommand,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a process has one of them")]
pub(crate) enum ComponentsCommand {
    /// List the components
    List(ListComponents),
    /// Show a component
    Show {
        /// Id of the component
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        output: OutputOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListComponents {
    /// Only components of this kind, such as station
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only the children of this component; none: components without a parent
    #[arg(long, value_name = "ID")]
    pub parent: Option<String>,
    /// Only components whose name has this text
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    #[command(flatten)]
    pub place: PlaceFilters,
    #[command(flatten)]
    pub sort: SortOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Series {
    #[command(subcommand)]
    pub command: SeriesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SeriesCommand {
    /// List the series of a device
    List {
        /// External id of the device
        #[arg(value_name = "DEVICE")]
        device: String,
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Show a series
    Show {
        /// External id of the device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Metric
        #[arg(value_name = "METRIC")]
        metric: String,
        #[command(flatten)]
        output: OutputOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Targets {
    #[command(subcommand)]
    pub command: TargetsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TargetsCommand {
    /// List the targets of a series
    List {
        /// External id of the device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Metric
        #[arg(value_name = "METRIC")]
        metric: String,
        /// Only targets that start at this time or later
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only targets that start before this time
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Show a target
    Show {
        /// External id of the device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Metric
        #[arg(value_name = "METRIC")]
        metric: String,
        /// When the target starts
        #[arg(value_name = "TIME")]
        starts_at: String,
        #[command(flatten)]
        output: OutputOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    #[command(subcommand)]
    pub command: SeedCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SeedCommand {
    /// The low-voltage grid of the load test: stations, each with 10 devices that measure current
    /// and voltage. What is stored is left as it is
    LvGrid {
        /// Number of stations
        #[arg(
            long,
            default_value_t = 10_000,
            value_name = "N",
            value_parser = |text: &str| values::count(text, 1..=10_000_u32)
        )]
        stations: u32,
        #[command(flatten)]
        query: QueryUrl,
    },
}
