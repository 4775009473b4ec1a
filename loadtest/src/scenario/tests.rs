use super::*;

const MINIMAL: &str = "name = 'x'\nrate = 100\nduration = '1s'\nbatch = 1\nconnections = 1\n";

#[test]
fn every_built_in_scenario_is_valid_and_survives_serialization() {
    for (name, _) in BUILT_IN {
        let scenario = Scenario::load(Path::new(name)).unwrap();
        assert_eq!(scenario.name, name);
        let text = toml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse(&text).unwrap(), scenario);
    }
}

#[test]
fn an_invalid_scenario_gives_line_key_and_what_was_expected() {
    Scenario::parse(MINIMAL).unwrap();
    for (invalid, expected) in [
        (
            "conections = 5",
            &["line 6", "conections", "connections"][..],
        ),
        (
            "[fleet]\ndevices = 0",
            &["line 7", "devices", "expected a whole number from 1"],
        ),
        (
            "warm-up = '3 parsecs'",
            &["line 6", "warm-up", "expected a time such as"],
        ),
        (
            "warm-up = '2s'",
            &["line 6", "warm-up", "less than the duration"],
        ),
        (
            "begin = 'soon'",
            &["line 6", "begin", "expected a time such as \"2026"],
        ),
        (
            "[faults]\nbad = 2.0",
            &["line 7", "bad", "share from 0 to 1"],
        ),
        (
            "[body]\nformat = 'xml'",
            &["line 7", "format", "expected", "ndjson"],
        ),
        (
            "[shape]\nkind = 'ramp'",
            &["line 6", "shape.to", "is missing", "ramp"],
        ),
        (
            "[retry]\nattempts = 5\n[shape]\nkind = 'spike'\nto = 5\nlasts = '1s'",
            &["line 8", "shape.at", "is missing"],
        ),
        (
            "[shape]\nto = 500",
            &["line 7", "shape.to", "has no effect", "constant"],
        ),
        (
            "[shape]\nkind = 'spike'\nto = 5\nat = '2s'\nlasts = '1s'",
            &["line 9", "shape.at", "less than the duration"],
        ),
        (
            "[fleet]\nprefix = 'a\"b'",
            &["line 7", "prefix", "letters, digits"],
        ),
        (
            "mode = 'closed'",
            &["fleet.devices", "at least 20000 devices"],
        ),
        (
            "[fleet]\ndevices = 1\nmetrics = ['a', 'a']",
            &["line 8", "metrics", "different names"],
        ),
        (
            "[outage]\nshare = 0.1\nfrom = '1s'\nuntil = '500ms'\ncatch-up = 2",
            &["line 9", "outage.until"],
        ),
        (
            "mode = 'half-open'",
            &["line 6", "mode", "unknown value", "closed"],
        ),
        (
            "seed = -1",
            &["line 6", "-1: expected a whole number from 0"],
        ),
        (
            "warm-up = 2",
            &["line 6", "2: expected a time such as", "\"30s\""],
        ),
        (
            "begin = 2026",
            &["line 6", "2026: expected a time such as \"2026"],
        ),
        (
            "[fleet]\nprefix = 7",
            &["line 7", "7: expected 1 to 100 letters"],
        ),
        ("fleet = 5", &["line 6", "expected a table"]),
        (
            "[shape]\nkind = 'step'\nto = 5\nsteps = 1",
            &["line 9", "1: expected a whole number from 2 to 1000"],
        ),
        (
            "[retry]\nattempts = -1",
            &["line 7", "-1: expected a whole number from 0"],
        ),
    ] {
        let error = Scenario::parse(&format!("{MINIMAL}{invalid}\n"))
            .unwrap_err()
            .to_string();
        assert!(
            expected.iter().all(|part| error.contains(part)),
            "{invalid:?} gave: {error}"
        );
        for jargon in ["field", "variant", "struct", "f64", "i64", "u32", "u64"] {
            assert!(!error.contains(jargon), "{invalid:?} gave: {error}");
        }
    }
    let large_batch = MINIMAL.replace("batch = 1", "batch = 200");
    let error = Scenario::parse(&large_batch).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 4: batch: expected at most 100, the number of readings of the whole run"
    );
    let few_devices = MINIMAL.replace("100", "9000000");
    let error = Scenario::parse(&few_devices).unwrap_err().to_string();
    assert!(error.contains("expected at least 18000 devices"), "{error}");
}

#[test]
fn a_closed_loop_needs_no_rate_and_a_schedule_does() {
    let without_rate = MINIMAL.replace("rate = 100\n", "");
    let closed = format!("{without_rate}mode = 'closed'\n[fleet]\ndevices = 20000\n");
    let scenario = Scenario::parse(&closed).unwrap();
    assert_eq!((scenario.mode, scenario.rate), (Mode::Closed, None));
    let text = toml::to_string(&scenario).unwrap();
    assert_eq!(Scenario::parse(&text).unwrap(), scenario);
    // The rate of an older file has no effect.
    Scenario::parse(&format!("rate = 5\n{closed}")).unwrap();
    let error = Scenario::parse(&without_rate).unwrap_err().to_string();
    assert!(
        error.starts_with("rate: the key is missing") && error.contains("mode = \"closed\""),
        "{error}"
    );
}

/// The blocks of Markdown between ```toml and ```.
fn toml_blocks(page: &str) -> Vec<&str> {
    let blocks = page.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_scenarios_in_the_documentation_are_valid_and_have_every_key() {
    let page = include_str!("../../../docs/LOAD_TESTS.md");
    let blocks = toml_blocks(page);
    let scenarios: Vec<Scenario> = blocks
        .iter()
        .map(|block| Scenario::parse(block).unwrap())
        .collect();
    let full = toml::Table::try_from(&scenarios[1]).unwrap();
    let written: toml::Table = blocks[1].parse().unwrap();
    for (key, value) in &full {
        assert!(written.contains_key(key), "{key} is not in the example");
        for inner in value.as_table().into_iter().flat_map(toml::Table::keys) {
            assert!(
                page.contains(&format!("| `{key}.{inner}` |")),
                "{key}.{inner}"
            );
        }
        assert!(
            value.is_table() || page.contains(&format!("| `{key}` |")),
            "{key}"
        );
    }
    assert!(
        scenarios
            .iter()
            .any(|scenario| scenario.mode == Mode::Closed)
    );
    for (name, _) in BUILT_IN {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}
