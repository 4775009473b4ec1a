//! `gridwatch components`, `devices`, `series` and `targets`: which paths they ask for.

use super::documents::{Component, Device, Series, Target};
use super::{Filters, list, show, watch};
use crate::config::{
    ComponentsCommand, ListDevices, PlaceFilters, SeriesCommand, ShowDevice, SortOptions,
    TargetsCommand,
};
use crate::output::ended;
use crate::query_client::{QueryApi, segment};

/// Runs `gridwatch components`.
pub(crate) async fn components(command: ComponentsCommand) -> anyhow::Result<()> {
    ended(match command {
        ComponentsCommand::List(arguments) => {
            let api = arguments.output.query.api()?;
            let mut filters = vec![
                ("kind", arguments.kind),
                ("parent", arguments.parent),
                ("text", arguments.text),
            ];
            filters.extend(place(arguments.place));
            filters.extend(order(arguments.sort));
            list::<Component>(&api, "/components", &filters, arguments.output.json).await
        }
        ComponentsCommand::Show { id, output } => {
            let path = format!("/components/{}", segment(&id));
            show::<Component>(&output.query.api()?, &path, output.json).await
        }
    })
}

/// Runs `gridwatch devices list` and `show`.
pub(crate) mod devices {
    use super::*;

    pub(crate) async fn list(arguments: ListDevices) -> anyhow::Result<()> {
        let api = arguments.output.query.api()?;
        let mut filters = vec![
            ("type", arguments.device_type),
            ("active", arguments.active),
            ("health", arguments.health),
            ("text", arguments.text),
        ];
        filters.extend(place(arguments.place));
        filters.extend(order(arguments.sort));
        let json = arguments.output.json;
        let print = async || super::list::<Device>(&api, "/devices", &filters, json).await;
        ended(watch(arguments.watch.watch, print).await)
    }

    pub(crate) async fn show(arguments: ShowDevice) -> anyhow::Result<()> {
        let api = arguments.output.query.api()?;
        let path = format!("/devices/{}", segment(&arguments.device));
        let json = arguments.output.json;
        let print = async || super::show::<Device>(&api, &path, json).await;
        ended(watch(arguments.watch.watch, print).await)
    }
}

/// Runs `gridwatch series`.
pub(crate) async fn series(command: SeriesCommand) -> anyhow::Result<()> {
    let series = |device: &str| format!("/devices/{}/series", segment(device));
    ended(match command {
        SeriesCommand::List { device, output } => {
            let api = output.query.api()?;
            list::<Series>(&api, &series(&device), &Vec::new(), output.json).await
        }
        SeriesCommand::Show {
            device,
            metric,
            output,
        } => {
            let path = format!("{}/{}", series(&device), segment(&metric));
            show::<Series>(&output.query.api()?, &path, output.json).await
        }
    })
}

/// Runs `gridwatch targets`.
pub(crate) async fn targets(command: TargetsCommand) -> anyhow::Result<()> {
    let targets = |device: &str, metric: &str| {
        let (device, metric) = (segment(device), segment(metric));
        format!("/devices/{device}/series/{metric}/targets")
    };
    ended(match command {
        TargetsCommand::List {
            device,
            metric,
            from,
            to,
            output,
        } => {
            let filters = vec![("from", from), ("to", to)];
            let path = targets(&device, &metric);
            list::<Target>(&output.query.api()?, &path, &filters, output.json).await
        }
        TargetsCommand::Show {
            device,
            metric,
            starts_at,
            output,
        } => {
            let path = format!("{}/{}", targets(&device, &metric), segment(&starts_at));
            show::<Target>(&output.query.api()?, &path, output.json).await
        }
    })
}

fn place(filters: PlaceFilters) -> Filters {
    vec![
        ("within", filters.within),
        ("at", filters.at),
        ("customer", filters.customer),
        ("box", filters.bounding_box),
        ("near", filters.near),
        ("radius", filters.radius),
    ]
}

fn order(options: SortOptions) -> Filters {
    vec![("sort", options.sort), ("order", options.order)]
}

impl crate::config::QueryUrl {
    /// The query API at this address.
    fn api(&self) -> Result<QueryApi, crate::UsageError> {
        QueryApi::new("--url", &self.url)
    }
}
