//! The dashboards, one module each.

mod broker;
mod devices;
mod front_end;
mod load_test;
mod overview;
mod process;
mod readings;
mod worker;

pub use overview::UID as OVERVIEW;

use crate::dashboard::{Dashboard, Kind, Panel};
use crate::promql::stage_quantile;
use schema::metric;

pub use broker::UID as BROKER;
pub use front_end::UID as FRONT_END;
pub use worker::UID as WORKER;

/// Every dashboard.
pub fn all() -> Vec<Dashboard> {
    vec![
        overview::dashboard(),
        front_end::dashboard(),
        worker::dashboard(),
        broker::dashboard(),
        devices::dashboard(),
        readings::dashboard(),
        load_test::dashboard(),
    ]
}

/// The size of a panel that shares its row with two others.
const THIRD: (u32, u32) = (8, 7);
/// The size of a panel that shares its row with another one.
const HALF: (u32, u32) = (12, 8);
/// The size of a value in a row of eight.
const TILE: (u32, u32) = (3, 4);

/// A number of things of which there should be none.
const NONE_IS_GOOD: Kind = Kind::Value {
    warn: 1.0,
    bad: 1.0,
};

/// A quantile of the time of every stage.
fn stages(title: &'static str, quantile: f64) -> Panel {
    let description = "Time of a reading between two of its clocks, by stage. The stages that \
                       begin with 'received' are Gridwatch's; 'measured' is the clock of the \
                       device.";
    Panel::new(title, Kind::Lines, "s", THIRD, description)
        .query(stage_quantile(quantile, metric::STAGE_SECONDS), "{{stage}}")
}
