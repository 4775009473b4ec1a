//! Which series a request reads: those of devices, or those of a subtree of components.
//!
//! In: the parameters `device`, or `component` with `topology`, then `metric` and `time_zone`. Out:
//! series, each with the parts of the range in which it counts. Without `time_zone`, the zone is
//! that of the component, or the one of the components of all devices. A name that does not exist
//! is an error, and not an empty response.

use jiff::tz::TimeZone;
use service::ApiError;
use store::Pool;
use store::reads::points::TimeRange;
use store::reads::series;
use store::reads::subtree::{self, Member, Topology};
use uuid::Uuid;

use crate::error::api_error;
use crate::parameters::{Parameters, bad};
use crate::time;

/// Upper bound on the devices of one request.
const MAX_DEVICES: usize = 1_000;
/// Upper bound on the series of a subtree, counting each part of the range.
const MAX_MEMBERS: usize = 10_000;

enum Source {
    Devices(Vec<String>),
    Component(Uuid, Topology),
}

/// What a request asks for.
pub(crate) struct Selection {
    source: Source,
    /// One metric, or all of them.
    pub metric: Option<String>,
    /// The time zone of the request, or else that of the component or of the components of all
    /// devices, or else UTC.
    pub zone: TimeZone,
}

impl Selection {
    /// Reads the parameters of a path that names devices or a component.
    ///
    /// # Errors
    /// A bad value, or a component that does not exist.
    pub(crate) async fn read(
        parameters: &mut Parameters<'_>,
        pool: &Pool,
    ) -> Result<Self, ApiError> {
        let devices = parameters.all("device");
        let component = parameters.uuid("component")?;
        if let Some(component) = component {
            if !devices.is_empty() {
                let sentence = "device and component exclude each other: name one of them";
                return Err(bad(sentence.into()));
            }
            return Self::of_component(parameters, pool, component).await;
        }
        if devices.is_empty() {
            let sentence = "device is missing: name a device, or several by repeating the \
                            parameter, or a component";
            return Err(bad(sentence.into()));
        }
        if devices.len() > MAX_DEVICES {
            let sentence = format!("{} devices; at most {MAX_DEVICES} are read", devices.len());
            return Err(bad(sentence));
        }
        Ok(Self {
            metric: parameters.one("metric")?,
            zone: zone_of_devices(parameters, pool, &devices).await?,
            source: Source::Devices(devices),
        })
    }

    /// Reads the parameters of a path that names a component.
    ///
    /// # Errors
    /// A bad value, or a component that does not exist.
    pub(crate) async fn of_component(
        parameters: &mut Parameters<'_>,
        pool: &Pool,
        component: Uuid,
    ) -> Result<Self, ApiError> {
        let topology = parameters.parsed("topology", |text| match text {
            "history" => Ok(Topology::History),
            "now" => Ok(Topology::Now),
            _ => Err(format!(
                "topology: '{text}' is not a topology: use history or now"
            )),
        })?;
        let metric = parameters.one("metric")?;
        let own = parameters.parsed("time_zone", time::zone)?;
        let stored = subtree::time_zone(pool, component).await;
        let Some(stored) = stored.map_err(|error| api_error(&error))? else {
            return Err(ApiError::UnknownResource {
                what: "component",
                id: component.to_string(),
            });
        };
        let stored = stored.and_then(|name| TimeZone::get(&name).ok());
        Ok(Self {
            source: Source::Component(component, topology.unwrap_or_default()),
            metric,
            zone: own.or(stored).unwrap_or(TimeZone::UTC),
        })
    }

    /// The component, if the request names one.
    pub(crate) fn component(&self) -> Option<Uuid> {
        match self.source {
            Source::Devices(_) => None,
            Source::Component(id, _) => Some(id),
        }
    }

    /// The series, with the parts of the range in which they count.
    ///
    /// # Errors
    /// A device or a series that does not exist, or a subtree with too many of them.
    pub(crate) async fn find(
        &self,
        pool: &Pool,
        range: TimeRange,
    ) -> Result<Vec<Member>, ApiError> {
        let metric = self.metric.as_deref();
        match &self.source {
            Source::Devices(devices) => of_devices(pool, devices, metric, range).await,
            Source::Component(id, topology) => {
                let found = subtree::members(pool, *id, metric, range, *topology, MAX_MEMBERS);
                let found = found.await.map_err(|error| api_error(&error))?;
                found.ok_or_else(|| {
                    bad(format!(
                        "component: the subtree has more than {MAX_MEMBERS} series; \
                         name a metric, or a component below it"
                    ))
                })
            }
        }
    }
}

/// `time_zone`, or else the time zone of the components of all these devices, or else UTC.
///
/// # Errors
/// There is no such time zone.
pub(crate) async fn zone_of_devices(
    parameters: &mut Parameters<'_>,
    pool: &Pool,
    devices: &[String],
) -> Result<TimeZone, ApiError> {
    if let Some(zone) = parameters.parsed("time_zone", time::zone)? {
        return Ok(zone);
    }
    let stored = series::time_zone(pool, devices).await;
    let stored = stored.map_err(|error| api_error(&error))?;
    let zone = stored.and_then(|name| TimeZone::get(&name).ok());
    Ok(zone.unwrap_or(TimeZone::UTC))
}

async fn of_devices(
    pool: &Pool,
    devices: &[String],
    metric: Option<&str>,
    range: TimeRange,
) -> Result<Vec<Member>, ApiError> {
    let found = series::find(pool, devices, metric).await;
    let found = found.map_err(|error| api_error(&error))?;
    let missing = |device: &&String| !found.iter().any(|series| series.device == **device);
    if let Some(device) = devices.iter().find(missing) {
        let unknown = series::unknown_devices(pool, devices).await;
        let unknown = unknown.map_err(|error| api_error(&error))?;
        match (unknown.first(), metric) {
            (Some(device), _) => return Err(ApiError::UnknownDevice(device.clone())),
            (None, Some(metric)) => {
                return Err(ApiError::UnknownSeries {
                    device: device.clone(),
                    metric: metric.into(),
                });
            }
            // A device without any series has no points.
            (None, None) => {}
        }
    }
    let whole = |series| Member {
        series,
        parts: vec![range],
    };
    Ok(found.into_iter().map(whole).collect())
}
