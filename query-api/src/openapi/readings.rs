//! The operations on readings.

use serde_json::{Value, json};
use service::openapi::schema::{count, list, nullable, number, object, text, time, uuid};
use service::openapi::{Content, Declared, Operation, Success};

use super::fields::{complete, deletion};
use super::{json, operation, parameters, success};
use crate::format::Format;

const READINGS: &str = "Readings";
const PIPELINE: &str = "Pipeline";
const PAGE: &str = "the page";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        read(),
        daily(),
        performance(),
        latest(),
        history(),
        tail(),
        delete(),
        conflicts(),
        dead_letters(),
        latency(),
    ]
}

fn with(mut own: Operation, parameters: Declared, errors: &[&'static str]) -> Operation {
    own.parameters.push(parameters);
    own.errors.extend_from_slice(errors);
    own
}

fn read() -> Operation {
    let own = operation(
        ("get", "/v1/readings", "readReadings"),
        READINGS,
        (
            "Read readings, or aggregates of them",
            "The readings of devices, or of the subtree of a component, in a range of time. With \
             `resolution` or `max_points` they are aggregated into buckets.\n\n\
             A response of any size is streamed, and proves that it is complete: JSON ends with \
             `next`, NDJSON with a line `{\"end\":true,\"rows\":…}`, CSV with the HTTP trailer \
             `gridwatch-rows`, which every format has. If `limit` has cut the response off, the \
             trailer `gridwatch-next` is the value of `next` for the next page.",
        ),
    );
    let errors = [
        "unknown_device",
        "unknown_series",
        "unknown_resource",
        "not_acceptable",
    ];
    let mut own = with(own, parameters::READINGS, &errors);
    let example = json!({
        "series": [{
            "device": "meter-1", "metric": "energy", "unit": "kWh",
            "points": [{ "time": "2019-01-17T00:00:00Z", "value": 51.66 }],
        }],
        "next": null,
    });
    let lines = concat!(
        r#"{"device":"meter-1","metric":"energy","time":"2019-01-17T00:00:00Z","value":51.66}"#,
        "\n",
        r#"{"end":true,"rows":1,"next":null}"#,
        "\n",
    );
    let table = "device,metric,time,value\r\nmeter-1,energy,2019-01-17T00:00:00Z,51.66\r\n";
    let contents = forms(series(vec![point(), bucket()]), example, lines, table);
    own.successes.push(success(
        200,
        "the series, each with its points or buckets",
        contents,
    ));
    own
}

fn daily() -> Operation {
    let own = operation(
        ("get", "/v1/daily", "readDaily"),
        READINGS,
        (
            "Read minimum, quartiles and maximum of each local day",
            "The days are those of the time zone, and last 23 to 25 hours. Quartiles are \
             interpolated linearly, as `percentile_cont` does.",
        ),
    );
    let errors = [
        "unknown_device",
        "unknown_series",
        "unknown_resource",
        "not_acceptable",
    ];
    let mut own = with(own, parameters::DAILY, &errors);
    let example = json!({
        "series": [{
            "device": "meter-1", "metric": "energy", "unit": "kWh",
            "points": [{
                "start": "2019-01-17T00:00:00Z", "end": "2019-01-18T00:00:00Z",
                "count": 95, "coverage": null,
                "min": 50.4, "q1": 65.255, "median": 177.11, "q3": 276.9, "max": 293.36,
            }],
        }],
        "next": null,
    });
    let lines = concat!(
        r#"{"device":"meter-1","metric":"energy","start":"2019-01-17T00:00:00Z","#,
        r#""end":"2019-01-18T00:00:00Z","count":95,"coverage":null,"min":50.4,"q1":65.255,"#,
        r#""median":177.11,"q3":276.9,"max":293.36}"#,
        "\n",
        r#"{"end":true,"rows":1,"next":null}"#,
        "\n",
    );
    let table = concat!(
        "device,metric,start,end,count,coverage,min,q1,median,q3,max\r\n",
        "meter-1,energy,2019-01-17T00:00:00Z,2019-01-18T00:00:00Z,95,,",
        "50.4,65.255,177.11,276.9,293.36\r\n",
    );
    let contents = forms(series(vec![bucket()]), example, lines, table);
    own.successes
        .push(success(200, "the series, each with its days", contents));
    own
}

/// JSON, NDJSON, CSV and Arrow.
fn forms(schema: Value, example: Value, lines: &str, table: &str) -> Vec<Content> {
    let text = |media_type, example: &str| Content {
        media_type,
        schema: json!({ "type": "string" }),
        example: example.into(),
    };
    vec![
        json(schema, example),
        text("application/x-ndjson", lines),
        text("text/csv", table),
        Content {
            media_type: Format::Arrow.media_type(),
            schema: json!({ "type": "string", "format": "binary" }),
            example: "(an Arrow IPC stream with the columns of CSV)".into(),
        },
    ]
}

fn series(points: Vec<Value>) -> Value {
    let mut series = object(json!({
        "metric": text("name of the metric"),
        "unit": nullable(text("unit of the values (UCUM)")),
        "points": list(json!({ "anyOf": points })),
    }));
    series["properties"]["device"] = text("external id of the device");
    series["properties"]["component"] = text("with `combine=sum`: id of the component");
    series["properties"]["period"] = text("with `compare`: `current` or `previous`");
    object(json!({
        "series": list(series),
        "next": nullable(text("the parameter `next` of the page behind it; null at the end")),
    }))
}

fn point() -> Value {
    object(json!({
        "time": time("when it was measured"),
        "value": number("in the unit of the series"),
    }))
}

fn bucket() -> Value {
    let mut bucket = object(json!({
        "start": time("beginning of the bucket, which belongs to it"),
        "end": time("end of the bucket, which does not belong to it"),
        "count": count("number of readings"),
        "coverage": nullable(number(
            "share of the expected readings that are there, at most 1; null without an \
             `expected_interval`",
        )),
    }));
    let aggregates = [
        ("min", "the least value"),
        ("q1", "the first quartile"),
        ("median", "the median"),
        ("q3", "the third quartile"),
        ("max", "the greatest value"),
        ("mean", "the mean"),
        (
            "twa",
            "the time-weighted mean: a value is valid until the next one",
        ),
        ("sum", "the sum"),
        ("first", "the first value"),
        ("last", "the last value"),
        ("increase", "the increase of a counter"),
    ];
    for (name, description) in aggregates {
        bucket["properties"][name] = nullable(number(description));
    }
    bucket["properties"]["beside"] = nullable(time(
        "with `compare`: `start` of the bucket of the current period at the same local time",
    ));
    bucket["properties"]["contributing"] = count("of a sum: the devices with a value");
    bucket["properties"]["of"] = count("of a sum: the devices that were in the subtree");
    bucket
}

fn performance() -> Operation {
    let own = operation(
        ("get", "/v1/components/{id}/performance", "readPerformance"),
        READINGS,
        (
            "Compare actual values with targets",
            "The sum of the series of a subtree, and that of their targets. The arrays have the \
             same length: an entry for each bucket of the range.\n\n\
             A target of a gauge is a value, and the goal its time-weighted mean. A target of a \
             counter is an increase per hour, and the goal what it adds up to. A target of an \
             interval is the value of one interval, and is compared with their mean.",
        ),
    );
    let mut own = with(own, parameters::PERFORMANCE, &["unknown_resource"]);
    let schema = object(json!({
        "component": text("id of the component"),
        "metric": text("name of the metric"),
        "unit": nullable(text("unit of the values (UCUM)")),
        "time": list(time("beginning of the bucket")),
        "end": list(time("end of the bucket")),
        "actual": list(nullable(number("what was measured"))),
        "goal": list(nullable(number("the target; null without one"))),
        "ratio": list(nullable(number("`actual / goal`"))),
        "contributing": list(nullable(count("devices with a value"))),
        "of": list(nullable(count("devices that were in the subtree"))),
    }));
    let example = json!({
        "component": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e", "metric": "energy", "unit": "kWh",
        "time": ["2019-01-17T00:00:00Z"], "end": ["2019-01-17T01:00:00Z"],
        "actual": [52.1], "goal": [50.0], "ratio": [1.042], "contributing": [1], "of": [1],
    });
    own.successes.push(success(
        200,
        "columns of the same length",
        vec![json(schema, example)],
    ));
    own
}

fn latest() -> Operation {
    let own = operation(
        ("get", "/v1/latest", "readLatest"),
        READINGS,
        (
            "Read the latest reading of each series",
            "Without `device`, of all devices. A page has at most 1,000 series. Devices that do \
             not exist are left out.",
        ),
    );
    let mut own = with(own, parameters::LATEST, &[]);
    let schema = page(
        "latest",
        object(json!({
            "device": text("external id of the device"),
            "metric": text("name of the metric"),
            "unit": nullable(text("unit of the value (UCUM)")),
            "time": time("when it was measured"),
            "value": number("in the unit of the series"),
        })),
    );
    let example = json!({
        "latest": [{
            "device": "meter-1", "metric": "energy", "unit": "kWh",
            "time": "2019-01-17T23:45:00Z", "value": 56.16,
        }],
        "next": null,
    });
    own.successes
        .push(success(200, PAGE, vec![json(schema, example)]));
    own
}

fn page(name: &str, item: Value) -> Value {
    object(json!({
        name: list(item),
        "next": nullable(text("the parameter `next` of the page behind it; null on the last one")),
    }))
}

fn history() -> Operation {
    let own = operation(
        ("get", "/v1/readings/history", "readHistory"),
        READINGS,
        (
            "Read what happened to one reading",
            "The stored value, the batches that may have carried the reading with their clocks, \
             other values that were offered, and why it was not stored. A list has at most 100 \
             entries.",
        ),
    );
    let mut own = with(
        own,
        parameters::HISTORY,
        &["unknown_device", "unknown_series"],
    );
    let found = |item| object(json!({ "entries": list(item), "complete": complete() }));
    let clock = |description| nullable(time(description));
    let schema = object(json!({
        "device": text("external id of the device"),
        "metric": text("name of the metric"),
        "unit": nullable(text("unit of the values (UCUM)")),
        "time": time("when the reading was measured"),
        "stored_value": nullable(number("what the table has")),
        "batches": found(object(json!({
            "batch": uuid("id of the batch"),
            "readings": count("its readings"),
            "stored": count("how many were stored"),
            "duplicates": count("how many were stored before"),
            "conflicts": count("how many had another value than the stored one"),
            "dead_letters": count("how many could not be stored"),
            "first_received": clock("when its first reading was received"),
            "last_received": clock("when its last reading was received"),
            "enqueued_at": clock("when it was sent to the queue"),
            "dequeued_at": clock("when the worker received it"),
            "persisted_at": clock("when it was stored"),
        }))),
        "conflicts": found(object(json!({
            "id": count("id of the conflict"),
            "stored_value": nullable(number("the value that stays")),
            "offered_value": nullable(number("the value that was offered")),
            "batch": nullable(uuid("the batch that offered it")),
            "seen_at": time("when it was offered"),
        }))),
        "dead_letters": found(object(json!({
            "id": count("id of the dead letter"),
            "code": text("the reason, for programs"),
            "detail": nullable(text("the reason, for people")),
            "value": nullable(number("the value that was not stored")),
            "batch": nullable(uuid("the batch that carried it")),
            "dead_lettered_at": time("when that was"),
        }))),
    }));
    let batch = json!({
        "batch": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d72", "readings": 96, "stored": 96,
        "duplicates": 0, "conflicts": 0, "dead_letters": 0,
        "first_received": "2026-11-20T10:00:00.000100Z",
        "last_received": "2026-11-20T10:00:00.000100Z",
        "enqueued_at": "2026-11-20T10:00:00.001200Z",
        "dequeued_at": "2026-11-20T10:00:00.002100Z",
        "persisted_at": "2026-11-20T10:00:00.009800Z",
    });
    let none = json!({ "entries": [], "complete": true });
    let example = json!({
        "device": "meter-1", "metric": "energy", "unit": "kWh", "time": "2019-01-17T00:15:00Z",
        "stored_value": 51.66, "batches": { "entries": [batch], "complete": true },
        "conflicts": none, "dead_letters": none,
    });
    own.successes
        .push(success(200, "what is known", vec![json(schema, example)]));
    own
}

fn tail() -> Operation {
    let own = operation(
        ("get", "/v1/readings/tail", "tailReadings"),
        READINGS,
        (
            "Receive new readings as Server-Sent Events",
            "A stream that does not end, for `EventSource` in a browser. Each second, what was \
             stored since is one event `readings`. An event `reset` says that the id of the last \
             event cannot be resumed. A tail has at most 100 series, and a process at most 100 \
             tails.",
        ),
    );
    let mut own = with(own, parameters::TAIL, &["unknown_device", "overloaded"]);
    let events = concat!(
        "id: 7.1547683200000000\nevent: readings\n",
        r#"data: [{"device":"meter-1","metric":"energy","time":"2019-01-17T00:00:00Z","#,
        r#""value":51.66}]"#,
        "\n\n",
    );
    let content = Content {
        media_type: "text/event-stream",
        schema: json!({ "type": "string" }),
        example: events.into(),
    };
    own.successes
        .push(success(200, "the events", vec![content]));
    own
}

fn delete() -> Operation {
    let own = operation(
        ("delete", "/v1/readings", "deleteReadings"),
        READINGS,
        (
            "Delete the readings of a series in a range of time",
            "Up to 5,000 readings are deleted at once. Of more, a job deletes the rest. \
             `/v1/changes?entity=readings` shows who deleted which range.",
        ),
    );
    let errors = ["unknown_device", "unknown_series", "bad_header"];
    let mut own = with(own, parameters::DELETE_READINGS, &errors);
    let done = json!({ "deleted": { "readings": 96 }, "job": null });
    let job = "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d70";
    let begun = json!({ "deleted": { "readings": 5_000 }, "job": job });
    own.successes = vec![
        success(200, "all of them are deleted", vec![json(deletion(), done)]),
        Success {
            headers: &[("Location", "path of the job")],
            ..success(202, "a job deletes the rest", vec![json(deletion(), begun)])
        },
    ];
    own
}

fn conflicts() -> Operation {
    let own = operation(
        ("get", "/v1/conflicts", "listConflicts"),
        PIPELINE,
        (
            "List conflicts",
            "Readings that offered another value for a time of a series that was stored before. \
             The first value stays. The newest come first.",
        ),
    );
    let mut own = with(own, parameters::INCIDENTS, &[]);
    let schema = page(
        "conflicts",
        object(json!({
            "id": count("id of the conflict"),
            "device": nullable(text("external id of the device")),
            "metric": nullable(text("name of the metric")),
            "time": time("when the reading was measured"),
            "stored_value": number("the value that stays"),
            "offered_value": number("the value that was offered"),
            "batch": nullable(uuid("the batch that offered it")),
            "seen_at": time("when it was offered"),
        })),
    );
    let example = json!({
        "conflicts": [{
            "id": 1, "device": "meter-1", "metric": "energy",
            "time": "2019-01-17T00:00:00+00:00", "stored_value": 51.66, "offered_value": 51.7,
            "batch": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d72",
            "seen_at": "2026-11-20T10:00:00.0098+00:00",
        }],
        "next": null,
    });
    own.successes
        .push(success(200, PAGE, vec![json(schema, example)]));
    own
}

fn dead_letters() -> Operation {
    let own = operation(
        ("get", "/v1/dead-letters", "listDeadLetters"),
        PIPELINE,
        (
            "List dead letters",
            "Readings and messages that could not be stored, with the reason. The newest come \
             first.",
        ),
    );
    let mut own = with(own, parameters::INCIDENTS, &[]);
    let schema = page(
        "dead_letters",
        object(json!({
            "id": count("id of the dead letter"),
            "code": text("the reason, for programs"),
            "detail": nullable(text("the reason, for people")),
            "device": nullable(text("external id of the device")),
            "metric": nullable(text("name of the metric")),
            "measured_at_us": nullable(json!({
                "type": "integer",
                "description": "when it was measured, in microseconds since 1970",
            })),
            "value": nullable(number("the value; null if it is not finite")),
            "batch": nullable(uuid("the batch that carried it")),
            "message_sha256": nullable(text("digest of a message that is not a valid batch")),
            "dead_lettered_at": time("when that was"),
        })),
    );
    let example = json!({
        "dead_letters": [{
            "id": 1, "code": "deleted_series", "detail": "the device was deleted",
            "device": null, "metric": null, "measured_at_us": 1_547_683_200_000_000_i64,
            "value": 51.66, "batch": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d72",
            "message_sha256": null, "dead_lettered_at": "2026-11-20T10:00:00.0098+00:00",
        }],
        "next": null,
    });
    own.successes
        .push(success(200, PAGE, vec![json(schema, example)]));
    own
}

fn latency() -> Operation {
    let own = operation(
        ("get", "/v1/latency", "readLatency"),
        PIPELINE,
        (
            "Read the latency of the pipeline per minute",
            "The time between two clocks of a batch, from the ledger, for each minute in which \
             batches were stored. The range is at most 31 days.",
        ),
    );
    let mut own = with(own, parameters::LATENCY, &[]);
    let pair = || {
        object(json!({
            "p50": number("the median, in seconds"),
            "p99": number("the 99th percentile, in seconds"),
        }))
    };
    let schema = object(json!({
        "minutes": list(object(json!({
            "start": time("beginning of the minute"),
            "batches": count("batches that were stored in it"),
            "readings": count("their readings"),
            "seconds": object(json!({
                "received_to_enqueued": pair(),
                "enqueued_to_dequeued": pair(),
                "dequeued_to_persisted": pair(),
                "received_to_persisted": pair(),
            })),
        }))),
        "next": { "type": "null", "description": "there is one page" },
    }));
    let pair = json!({ "p50": 0.0021, "p99": 0.0184 });
    let example = json!({
        "minutes": [{
            "start": "2019-01-17T00:00:00Z", "batches": 60, "readings": 60_000,
            "seconds": {
                "received_to_enqueued": pair, "enqueued_to_dequeued": pair,
                "dequeued_to_persisted": pair, "received_to_persisted": pair,
            },
        }],
        "next": null,
    });
    own.successes
        .push(success(200, "the minutes", vec![json(schema, example)]));
    own
}
