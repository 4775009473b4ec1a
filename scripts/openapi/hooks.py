"""How schemathesis treats the API of Gridwatch."""

import itertools

import schemathesis

COMPONENT = "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e"
EXISTING = {
    "device": "meter-1",
    "metric": "energy",
    "component": COMPONENT,
    "within": COMPONENT,
    "time_zone": "Europe/Berlin",
    "from": "2019-01-17",
    "to": "2019-01-18T00:00:00+01:00",
}
valid_cases = itertools.count()


@schemathesis.serializer("application/x-ndjson", "text/csv")
def text(context, value):
    """Lines of text are sent as they are."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else str(value).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    path, query = case.path_parameters or {}, case.query or {}
    # Generated names do not exist: every second valid request has names that do.
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if is_valid and next(valid_cases) % 2:
        for values in (path, query):
            for name in values:
                values[name] = EXISTING.get(name, values[name])
        # These exclude each other.
        if "device" in query:
            for name in ("component", "topology", "combine"):
                query.pop(name, None)
        if "resolution" in query:
            query.pop("max_points", None)
    # A tail of a device that exists does not end: ask for one that does not exist.
    if case.operation.path == "/v1/readings/tail" and "device" in query:
        query["device"] = "none"
    # The device and the component of the examples are there for all operations.
    if case.method == "DELETE" and {"meter-1", COMPONENT} & set(map(str, path.values())):
        query.pop("cascade", None)
