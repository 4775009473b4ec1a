//! The parameters of every operation, as constants: the handlers read no others.
//!
//! Groups that several operations share come first. Examples of one operation go together.

use service::openapi::{Accepts, Declared, Parameter};
use store::model::Resource;

use crate::aggregate::Aggregate;

const DEVICE: Parameter = Parameter::query(
    "device",
    Accepts::Text,
    "external id of a device; repeat it for several devices, at most 1,000",
)
.repeated()
.example("meter-1");
const ONE_DEVICE: Parameter =
    Parameter::query("device", Accepts::Text, "external id of the device")
        .required()
        .example("meter-1");
const COMPONENT: Parameter = Parameter::query(
    "component",
    Accepts::Uuid,
    "instead of `device`: the id of a component, for all devices in its subtree, at most 10,000 \
     series",
);
const TOPOLOGY: Parameter = Parameter::query(
    "topology",
    Accepts::OneOf(&["history", "now"]),
    "with `component`: `history` (default), the tree of each time; `now`, the present tree",
);
const METRIC: Parameter = Parameter::query(
    "metric",
    Accepts::Text,
    "name of a metric (default: every metric of the devices)",
)
.example("energy");
const ONE_METRIC: Parameter = Parameter::query("metric", Accepts::Text, "name of the metric")
    .required()
    .example("energy");
const FROM: Parameter = Parameter::query(
    "from",
    Accepts::Time,
    "beginning of the range, which belongs to it: RFC 3339, a date, or milliseconds since 1970",
)
.required()
.example("2019-01-17");
const TO: Parameter = Parameter::query(
    "to",
    Accepts::Time,
    "end of the range, which does not belong to it; later than `from`",
)
.required()
.example("2019-01-18");
const TIME_ZONE: Parameter = Parameter::query(
    "time_zone",
    Accepts::Text,
    "IANA name of the zone of dates, days and months, such as `Europe/Berlin` (default: that of \
     the component, or of its nearest ancestor with one; that of the components of the devices, if \
     they all have the same; or else `UTC`). Times in responses are UTC",
);
const ORDER: Parameter = Parameter::query(
    "order",
    Accepts::OneOf(&["asc", "desc"]),
    "`asc` (default), or `desc` for the reverse order",
);
const FORMAT: Parameter = Parameter::query(
    "format",
    Accepts::OneOf(&["json", "ndjson", "csv", "arrow"]),
    "form of the response; without it, the header `Accept` decides",
);
const RESOLUTION: Parameter = Parameter::query(
    "resolution",
    Accepts::Pattern("^(raw|[1-9][0-9]{0,4}(s|m|h|d|mo))$"),
    "`raw` (default) for the readings, or the length of buckets: a number with `s`, `m`, `h`, `d` \
     or `mo`, such as `15m`. Buckets of days and months are those of the time zone",
);
const MAX_POINTS: Parameter = Parameter::query(
    "max_points",
    Accepts::Count(1_000_000),
    "instead of `resolution`: the finest resolution with at most so many buckets",
);
const NEXT: Parameter = Parameter::query(
    "next",
    Accepts::Text,
    "where the page starts: the value of `next` in the page before it",
);
const LIMIT: Parameter = Parameter::query(
    "limit",
    Accepts::Count(5_000),
    "upper bound on the entries of the page (default: 100)",
);

const AGGREGATES: [&str; Aggregate::ALL.len()] = {
    let mut names = [""; Aggregate::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Aggregate::ALL[index].name();
        index += 1;
    }
    names
};

const SELECTION: &[Parameter] = &[DEVICE, COMPONENT, TOPOLOGY, METRIC, TIME_ZONE];
const RANGE: &[Parameter] = &[FROM, TO];

/// `GET /v1/readings`.
pub(crate) const READINGS: Declared = &[
    SELECTION,
    RANGE,
    &[
        FORMAT,
        Parameter::query(
            "combine",
            Accepts::OneOf(&["none", "sum"]),
            "with `component`: `none` (default), a series for each device; `sum`, the sum of \
             them, which needs a `metric` and a `resolution`",
        ),
        ORDER,
        Parameter::query(
            "limit",
            Accepts::Count(1_000_000),
            "readings of a page; without it, all of them are in one response",
        ),
        NEXT,
        RESOLUTION,
        MAX_POINTS,
        Parameter::query(
            "aggregates",
            Accepts::ListOf(&AGGREGATES),
            "what each bucket has, with commas (default: `mean`). Quartiles are interpolated \
             linearly; `twa` is the time-weighted mean; `increase` is that of a counter, with \
             rollovers and resets",
        ),
        Parameter::query(
            "fill",
            Accepts::OneOf(&["none", "null", "previous", "linear"]),
            "what a bucket without readings shows: `none`, it is absent (default); `null`; \
             `previous`, the last value before it; `linear`, the value at its middle, on the line \
             between the readings before and after it",
        ),
        Parameter::query(
            "max_gap",
            Accepts::Pattern("^[1-9][0-9]{0,4}(s|m|h|d)$"),
            "with `fill=previous` or `linear`: a longer time between two readings is not filled; \
             a number with `s`, `m`, `h` or `d`, such as `1h`",
        ),
        Parameter::query(
            "compare",
            Accepts::Pattern("^[1-9][0-9]{0,4}(s|m|h|d|mo)$"),
            "with buckets: also the same period so much earlier; a number with `s`, `m`, `h`, `d` \
             or `mo`, such as `7d`. Days and months are those of the calendar of the time zone",
        ),
    ],
];

/// `GET /v1/daily`.
pub(crate) const DAILY: Declared = &[SELECTION, RANGE, &[FORMAT]];

/// `GET /v1/components/{id}/performance`.
pub(crate) const PERFORMANCE: Declared = &[
    &[COMPONENT_ID, TOPOLOGY, ONE_METRIC, TIME_ZONE],
    RANGE,
    &[
        Parameter::query(
            "resolution",
            Accepts::Pattern("^[1-9][0-9]{0,4}(s|m|h|d|mo)$"),
            "length of the buckets: a number with `s`, `m`, `h`, `d` or `mo`. Either this or \
             `max_points` is required",
        )
        .example("1h"),
        Parameter::query(
            "max_points",
            Accepts::Count(50_000),
            "instead of `resolution`: the finest resolution with at most so many buckets",
        ),
    ],
];

/// `GET /v1/readings/history`.
pub(crate) const HISTORY: Declared = &[&[
    ONE_DEVICE,
    ONE_METRIC,
    Parameter::query("time", Accepts::Time, "when the reading was measured")
        .required()
        .example("2019-01-17T00:15:00Z"),
]];

/// `GET /v1/readings/tail`.
pub(crate) const TAIL: Declared = &[&[
    Parameter {
        description: "external id of a device; repeat it for several devices, at most 100",
        required: true,
        ..DEVICE
    },
    METRIC,
    Parameter::header(
        "Last-Event-ID",
        Accepts::Pattern("^[0-9]+\\.-?[0-9]+(,[0-9]+\\.-?[0-9]+)*$"),
        "the `id` of the last event that the client has; the tail goes on behind it",
    ),
]];

/// `DELETE /v1/readings`.
pub(crate) const DELETE_READINGS: Declared = &[
    &[
        ONE_DEVICE,
        ONE_METRIC,
        Parameter {
            description: "IANA name of the zone of dates (default: `UTC`)",
            ..TIME_ZONE
        },
        Parameter {
            example: Some("2019-01-18"),
            ..FROM
        },
        Parameter {
            example: Some("2019-01-19"),
            ..TO
        },
    ],
    &[ACTOR],
];

/// `GET /v1/latest`.
pub(crate) const LATEST: Declared = &[&[DEVICE, METRIC, NEXT]];

/// `GET /v1/conflicts` and `GET /v1/dead-letters`.
pub(crate) const INCIDENTS: Declared = &[&[
    LIMIT,
    Parameter {
        accepts: Accepts::Pattern("^-?[0-9]{1,18}$"),
        ..NEXT
    },
]];

/// `GET /v1/latency`.
pub(crate) const LATENCY: Declared = &[
    &[Parameter {
        description: "IANA name of the zone of dates (default: `UTC`)",
        ..TIME_ZONE
    }],
    RANGE,
];

/// `GET /v1/changes`.
pub(crate) const CHANGES: Declared = &[&[
    Parameter::query(
        "entity",
        Accepts::Text,
        "what was changed: `kind`, `component`, `device`, `series`, `target`, `type`, `customer` \
         or `readings`",
    )
    .example("device"),
    Parameter::query(
        "id",
        Accepts::Text,
        "its key; the parts are separated by `/`",
    ),
    Parameter::query("actor", Accepts::Text, "who made the change"),
    Parameter {
        required: false,
        example: None,
        ..FROM
    },
    Parameter {
        required: false,
        example: None,
        ..TO
    },
    ORDER,
    LIMIT,
    Parameter {
        accepts: Accepts::Pattern("^-?[0-9]{1,18}$"),
        ..NEXT
    },
]];

/// `GET /v1/imports`.
pub(crate) const IMPORTS: Declared = &[&[ORDER, LIMIT, NEXT]];

/// The path of an import.
pub(crate) const IMPORT: Declared = &[&[Parameter::path(
    "id",
    Accepts::Text,
    "id of the import, a UUID",
    "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d71",
)]];

/// `GET /v1/jobs/{id}`.
pub(crate) const JOB: Declared = &[&[Parameter::path(
    "id",
    Accepts::Text,
    "id of the job, a UUID",
    "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d70",
)]];

const COMPONENT_ID: Parameter = Parameter::path(
    "id",
    Accepts::Text,
    "id of the component, a UUID",
    "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e",
);
const DEVICE_PATH: Parameter = Parameter::path(
    "device",
    Accepts::Text,
    "external id of the device",
    "meter-1",
);
const METRIC_PATH: Parameter =
    Parameter::path("metric", Accepts::Text, "name of the metric", "energy");

const ACTOR: Parameter = Parameter::header(
    "X-Actor",
    Accepts::Pattern("^[!-~]([ -~]{0,126}[!-~])?$"),
    "who makes the change, for `/v1/changes` (default: `anonymous`)",
)
.example("ada");
const IF_MATCH: Parameter = Parameter::header(
    "If-Match",
    Accepts::Pattern("^(\\*|\"[0-9]{1,18}\"(, ?\"[0-9]{1,18}\")*)$"),
    "the `ETag` of the version to change; another one gets 412",
);
const IDEMPOTENCY_KEY: Parameter = Parameter::header(
    "Idempotency-Key",
    Accepts::Pattern("^[!-~]([ -~]{0,126}[!-~])?$"),
    "a retry with the same key within 24 hours gets the first response",
);

/// The headers of a `POST`.
pub(crate) const CREATE: Declared = &[&[ACTOR, IDEMPOTENCY_KEY]];
/// The headers of a `PUT` or a `PATCH`.
pub(crate) const CHANGE: Declared = &[&[ACTOR, IF_MATCH]];
/// `DELETE` on a resource.
pub(crate) const DELETE: Declared = &[&[
    Parameter::query(
        "cascade",
        Accepts::Boolean,
        "`true` deletes what depends on it, too (default: `false`)",
    )
    .example("false"),
    ACTOR,
    IF_MATCH,
]];
/// The query of a bulk.
pub(crate) const BULK: Declared = &[&[Parameter::query(
    "existing",
    Accepts::OneOf(&["refuse", "skip"]),
    "`skip` leaves out and counts rows that exist already; they stay as they are (default: \
     `refuse`: they are errors)",
)]];
/// The headers of a `PUT` without versions.
pub(crate) const ACTOR_ONLY: Declared = &[&[ACTOR]];
/// The query of an operation that has no parameters there.
pub(crate) const NONE: Declared = &[];

/// The path of a list.
pub(crate) const fn list_path(resource: Resource) -> Declared {
    match resource {
        Resource::Series => &[&[DEVICE_PATH]],
        Resource::Target => &[&[DEVICE_PATH, METRIC_PATH]],
        _ => NONE,
    }
}

/// The path of one resource.
pub(crate) const fn item_path(resource: Resource) -> Declared {
    match resource {
        Resource::Kind => {
            const {
                &[&[Parameter::path(
                    "name",
                    Accepts::Text,
                    "name of the kind",
                    "station",
                )]]
            }
        }
        Resource::Component => &[&[COMPONENT_ID]],
        Resource::Device => &[&[DEVICE_PATH]],
        Resource::Series => &[&[DEVICE_PATH, METRIC_PATH]],
        Resource::Target => {
            const {
                &[&[
                    DEVICE_PATH,
                    METRIC_PATH,
                    Parameter::path(
                        "starts_at",
                        Accepts::Text,
                        "when the target starts: RFC 3339",
                        "2019-01-01T00:00:00Z",
                    ),
                ]]
            }
        }
        Resource::Type => {
            const {
                &[&[Parameter::path(
                    "id",
                    Accepts::Text,
                    "id of the type, a UUID",
                    "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6f",
                )]]
            }
        }
        Resource::Customer => {
            const {
                &[&[Parameter::path(
                    "id",
                    Accepts::Text,
                    "id of the customer, a UUID",
                    "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d71",
                )]]
            }
        }
    }
}

/// An order that has an index.
const fn sort(names: &'static [&'static str]) -> Parameter {
    Parameter::query(
        "sort",
        Accepts::OneOf(names),
        "what the list is sorted by (default: the first one)",
    )
}

const TOTAL: Parameter = Parameter::query(
    "total",
    Accepts::Boolean,
    "`true` adds the number of entries of all pages",
);
const PAGE: &[Parameter] = &[LIMIT, NEXT, ORDER, TOTAL];
const TEXT: Parameter = Parameter::query(
    "text",
    Accepts::NonEmptyText,
    "a part of the name or of the external id",
);
const NAME: Parameter = Parameter::query("name", Accepts::NonEmptyText, "the whole name");
const PLACE: &[Parameter] = &[
    Parameter::query(
        "within",
        Accepts::Uuid,
        "id of a component: only what is in its subtree",
    ),
    Parameter::query(
        "at",
        Accepts::Time,
        "with `within`: the tree of this time (default: now)",
    ),
    Parameter::query(
        "customer",
        Accepts::Uuid,
        "id of a customer: only what the customer owns",
    ),
    Parameter::query(
        "box",
        Accepts::Text,
        "`west,south,east,north` in degrees, such as `8.4,49.9,8.9,50.2`",
    ),
    Parameter::query(
        "near",
        Accepts::Text,
        "with `radius`: `latitude,longitude` in degrees, such as `50.1,8.7`",
    ),
    Parameter::query(
        "radius",
        Accepts::Positive(20_037_508.0),
        "with `near`: the distance in metres",
    ),
];

/// The query of a list.
pub(crate) const fn list(resource: Resource) -> Declared {
    match resource {
        Resource::Kind => const { &[&[sort(&["name"]), TEXT], PAGE] },
        Resource::Component => {
            const {
                &[
                    &[
                        sort(&["created_at", "name", "updated_at"]),
                        TEXT,
                        Parameter::query("kind", Accepts::NonEmptyText, "name of a kind")
                            .example("station"),
                        Parameter::query(
                            "parent",
                            Accepts::Text,
                            "id of the parent, or `none` for components without one",
                        ),
                    ],
                    PLACE,
                    PAGE,
                ]
            }
        }
        Resource::Device => {
            const {
                &[
                    &[
                        sort(&["device", "created_at"]),
                        TEXT,
                        Parameter::query("type", Accepts::Uuid, "id of a type"),
                        Parameter::query(
                            "active",
                            Accepts::Boolean,
                            "only active or inactive devices",
                        )
                        .example("true"),
                        Parameter::query(
                            "health",
                            Accepts::OneOf(&["ok", "deteriorated", "unreachable", "unknown"]),
                            "the health of the devices; cannot be combined with `total`",
                        ),
                    ],
                    PLACE,
                    PAGE,
                ]
            }
        }
        Resource::Series => const { &[&[sort(&["metric"])], PAGE] },
        Resource::Target => {
            const {
                &[
                    &[
                        sort(&["starts_at"]),
                        Parameter {
                            required: false,
                            example: None,
                            ..FROM
                        },
                        Parameter {
                            required: false,
                            example: None,
                            ..TO
                        },
                    ],
                    PAGE,
                ]
            }
        }
        Resource::Type => {
            const {
                &[
                    &[
                        sort(&["created_at", "name"]),
                        TEXT,
                        Parameter::query("category", Accepts::NonEmptyText, "the category"),
                        NAME,
                    ],
                    PAGE,
                ]
            }
        }
        Resource::Customer => const { &[&[sort(&["created_at", "name"]), TEXT, NAME], PAGE] },
    }
}
