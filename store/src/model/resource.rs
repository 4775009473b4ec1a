//! The tables of the model, as data: how a row is found, and which fields of a document are which
//! columns.
//!
//! In SQL text `e` is the row, and `$1` is its key: the values in the path of its URL, as text.

/// A table of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Kinds of components. The key is the name.
    Kind,
    /// Components. The key is the id.
    Component,
    /// Devices. The key is the external id.
    Device,
    /// Series. The key is the external id of the device, and the metric.
    Series,
    /// Targets. The key is the external id of the device, the metric, and the start.
    Target,
    /// Types. The key is the id.
    Type,
    /// Customers. The key is the id.
    Customer,
}

/// A field of a document that is a column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Name of the field.
    pub field: &'static str,
    /// Name of the column.
    pub name: &'static str,
    /// Its SQL type.
    pub sql_type: &'static str,
}

const fn column(field: &'static str, sql_type: &'static str) -> Column {
    Column {
        field,
        name: field,
        sql_type,
    }
}

const KIND: [Column; 3] = [
    column("name", "text"),
    column("parents", "jsonb"),
    column("attributes", "jsonb"),
];

const COMPONENT: [Column; 8] = [
    column("kind", "text"),
    column("parent", "uuid"),
    column("name", "text"),
    column("time_zone", "text"),
    column("latitude", "float8"),
    column("longitude", "float8"),
    column("attributes", "jsonb"),
    column("customer", "uuid"),
];

const DEVICE: [Column; 11] = [
    Column {
        field: "device",
        name: "external_id",
        sql_type: "text",
    },
    column("type", "uuid"),
    column("name", "text"),
    column("component", "uuid"),
    column("latitude", "float8"),
    column("longitude", "float8"),
    column("specs", "jsonb"),
    column("configuration", "jsonb"),
    column("active", "boolean"),
    column("activation_date", "date"),
    column("expected_interval", "float8"),
];

const SERIES: [Column; 4] = [
    column("metric", "text"),
    column("unit", "text"),
    column("kind", "text"),
    column("rollover", "float8"),
];

const TARGET: [Column; 2] = [
    column("starts_at", "timestamptz"),
    column("value", "float8"),
];

const TYPE: [Column; 3] = [
    column("category", "text"),
    column("name", "text"),
    column("attributes", "jsonb"),
];

const CUSTOMER: [Column; 2] = [column("name", "text"), column("attributes", "jsonb")];

/// The id of the device of a key.
const DEVICE_ID: &str =
    "(SELECT id FROM device WHERE external_id = ($1::text[])[1] AND deleted_at IS NULL)";
/// The id of the series of a key.
const SERIES_ID: &str = "(SELECT s.id FROM series s JOIN device d ON d.id = s.device_id
     WHERE d.external_id = ($1::text[])[1] AND d.deleted_at IS NULL
       AND s.metric = ($1::text[])[2])";

/// What every document ends with.
const META: &str = "'version', e.version, 'created_at', gridwatch_time(e.created_at),
     'updated_at', gridwatch_time(e.updated_at), 'updated_by', e.updated_by";

impl Resource {
    /// The name in `change.entity`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Component => "component",
            Self::Device => "device",
            Self::Series => "series",
            Self::Target => "target",
            Self::Type => "type",
            Self::Customer => "customer",
        }
    }

    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Type => "catalog_type",
            _ => self.name(),
        }
    }

    /// The fields of a document that can be written.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Kind => &KIND,
            Self::Component => &COMPONENT,
            Self::Device => &DEVICE,
            Self::Series => &SERIES,
            Self::Target => &TARGET,
            Self::Type => &TYPE,
            Self::Customer => &CUSTOMER,
        }
    }

    /// The condition that a row has the key `$1`.
    pub(crate) fn has_key(self) -> String {
        match self {
            Self::Kind => "e.name = ($1::text[])[1]".into(),
            Self::Device => "e.external_id = ($1::text[])[1] AND e.deleted_at IS NULL".into(),
            Self::Series => format!("e.device_id = {DEVICE_ID} AND e.metric = ($1::text[])[2]"),
            Self::Target => {
                format!("e.series_id = {SERIES_ID} AND e.starts_at = ($1::text[])[3]::timestamptz")
            }
            Self::Component | Self::Type | Self::Customer => "e.id = ($1::text[])[1]::uuid".into(),
        }
    }

    /// The condition that a row belongs to the list whose path has the key `$1`.
    pub(crate) fn is_listed(self) -> String {
        match self {
            Self::Device => "e.deleted_at IS NULL".into(),
            Self::Series => format!("e.device_id = {DEVICE_ID}"),
            Self::Target => format!("e.series_id = {SERIES_ID}"),
            Self::Kind | Self::Component | Self::Type | Self::Customer => "true".into(),
        }
    }

    /// A column of the key that is not a field of the document, and its value.
    pub(crate) const fn key_column(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Kind | Self::Device => None,
            Self::Series => Some(("device_id", DEVICE_ID)),
            Self::Target => Some(("series_id", SERIES_ID)),
            Self::Component | Self::Type | Self::Customer => Some(("id", "($1::text[])[1]::uuid")),
        }
    }

    /// Foreign keys, and the field that each belongs to.
    pub(crate) const fn references(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Component => &[
                ("component_kind_fkey", "kind"),
                ("component_parent_fkey", "parent"),
                ("component_customer_fkey", "customer"),
            ],
            Self::Device => &[
                ("device_type_fkey", "type"),
                ("device_component_fkey", "component"),
            ],
            _ => &[],
        }
    }

    /// The document of the row `e`, as SQL.
    pub(crate) fn document(self) -> String {
        let own = match self {
            Self::Kind => "'name', e.name, 'parents', e.parents, 'attributes', e.attributes",
            Self::Component => {
                "'id', e.id, 'kind', e.kind, 'parent', e.parent, 'name', e.name,
                 'time_zone', e.time_zone, 'effective_time_zone', gridwatch_time_zone(e.id),
                 'latitude', e.latitude, 'longitude', e.longitude, 'attributes', e.attributes,
                 'customer', e.customer"
            }
            Self::Device => {
                "'device', e.external_id, 'type', e.type, 'name', e.name,
                 'component', e.component, 'latitude', e.latitude, 'longitude', e.longitude,
                 'specs', e.specs, 'configuration', e.configuration, 'active', e.active,
                 'activation_date', e.activation_date, 'expected_interval', e.expected_interval,
                 'series', (SELECT coalesce(json_agg(json_build_object(
                                'metric', s.metric, 'unit', s.unit, 'kind', s.kind)
                                ORDER BY s.metric), '[]')
                            FROM series s WHERE s.device_id = e.id)"
            }
            Self::Series => {
                "'device', (SELECT external_id FROM device WHERE id = e.device_id),
                 'metric', e.metric, 'unit', e.unit, 'kind', e.kind, 'rollover', e.rollover"
            }
            Self::Target => "'starts_at', gridwatch_time(e.starts_at), 'value', e.value",
            Self::Type => {
                "'id', e.id, 'category', e.category, 'name', e.name, 'attributes', e.attributes"
            }
            Self::Customer => "'id', e.id, 'name', e.name, 'attributes', e.attributes",
        };
        format!("json_build_object({own}, {META})::text")
    }
}
