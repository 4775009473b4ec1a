//! Files in, tables, plots and files out: the commands for people, on a standalone process.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_local_times_is_imported_twice_and_stored_once() {
    let server = Server::start(&[]);
    let file = server.file(
        "meter.csv",
        "when,usage\n\
         2026-03-29 01:45:00,1\n\
         2026-03-29 02:15:00,2\n\
         2026-03-29 03:15:00,3\n\
         2026-10-25 02:15:00,4\n\
         2026-06-01 00:00:00,NaN\n",
    );
    let flags = [
        "--device",
        "m",
        "--metric",
        "energy",
        "--time-column",
        "when",
        "--value-column",
        "usage",
    ];
    let refused = server.import(&file, &flags, 2);
    assert!(refused.stderr.contains("--time-zone"), "{refused:?}");
    let flags = [&flags[..], &["--time-zone", "Europe/Berlin"]].concat();
    for _ in 0..2 {
        server.import(&file, &flags, 3).assert_stdout(&[
            "2 accepted, 3 rejected",
            "line 3: skipped_time: column 'when': the time '2026-03-29 02:15:00' does not exist",
            "line 5: ambiguous_time: ",
            "line 6: value_not_finite: ",
        ]);
    }
    let expected = json!([
        { "time": "2026-03-29T00:45:00Z", "value": 1.0 },
        { "time": "2026-03-29T01:15:00Z", "value": 3.0 },
    ]);
    assert_eq!(json!(server.stored("m", "energy", 2).await), expected);
    let conflicts = server.get("/conflicts").await;
    assert_eq!(conflicts["conflicts"], json!([]));
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_can_be_imported_and_shown() {
    let server = Server::start(&[]);
    let mut dump = String::new();
    for minute in 0..60_i64 {
        let time = (1_767_225_600 + minute * 60) * 1_000_000_000;
        dump += &format!("power,host=m1 value={minute}.5,limit=16i {time}\n");
    }
    let dump = server.file("dump.lp", &dump);
    let import = server.import(&dump, &["--device-tag", "host"], 0);
    import.assert_stdout(&["120 accepted, 0 rejected"]);
    server.stored("m1", "power", 60).await;
    server.stored("m1", "power_limit", 60).await;

    let range = ["--from", "2026-01-01", "--to", "2026-01-02"];
    for (format, metric) in [("ndjson", "copy-1"), ("csv", "copy-2")] {
        let file = server.directory.path().join(format!("export.{format}"));
        let flags = [
            "export", "--device", "m1", "--metric", "power", "--format", format,
        ];
        let output = ["--output", file.to_str().unwrap()];
        let export = server.run(&[&flags[..], &range, &output].concat(), 0);
        assert!(export.stderr.contains("60 readings exported"), "{export:?}");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(server.run(&[&flags[..], &range].concat(), 0).stdout, text);
        let import = server.import(&file, &["--metric", metric], 0);
        import.assert_stdout(&["60 accepted, 0 rejected"]);
        let original = server.stored("m1", "power", 60).await;
        assert_eq!(server.stored("m1", metric, 60).await, original);
    }

    let show = ["readings", "m1", "--metric", "power"];
    let show = [&show[..], &range].concat();
    let raw = server.run(&show, 0);
    raw.assert_stdout(&["m1  power\n", "TIME", "2026-01-01 00:59:00+00:00   59.5\n"]);
    let buckets = ["--resolution", "30m", "--aggregates", "min,max"];
    let zone = ["--time-zone", "Asia/Kolkata"];
    let table = server.run(&[&show[..], &buckets, &zone].concat(), 0);
    table.assert_stdout(&["2026-01-01 05:30:00+05:30     30   0.5  29.5\n"]);
    let json = server.run(&[&show[..], &buckets, &["--json"]].concat(), 0);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["series"][0]["points"][1]["max"], json!(59.5));
    assert_eq!(json["next"], Value::Null);
    let plot = server.run(&[&show[..], &["--plot"]].concat(), 0);
    plot.assert_stdout(&["m1  power  mean\n", "52.5 │", "2026-01-01 00:00:00+00:00"]);

    let nothing = server.run(&["readings", "m1", "--last", "1d"], 0);
    assert!(
        nothing.stderr.contains("measured at 2026-01-01T00:59:00Z"),
        "{nothing:?}"
    );
    let unknown = server.run(&["readings", "nowhere"], 1);
    assert!(unknown.stderr.contains("'nowhere'"), "{unknown:?}");
    assert!(
        unknown.stderr.contains("gridwatch devices list"),
        "{unknown:?}"
    );
    let wrong = server.run(&["readings", "m1", "--resolution", "15"], 2);
    assert!(
        wrong.stderr.contains("'15' is not a resolution"),
        "{wrong:?}"
    );
    let url = server.url.clone();
    server.stop();
    let gone = Texts::of(&gridwatch(&["readings", "m1", "--url", &url]));
    assert!(
        gone.stderr.contains("cannot reach the query API"),
        "{gone:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factories_and_sprockets_are_imported_twice_and_stored_once() {
    // The series exist before their readings: the import registers them.
    let server = Server::start(&["--unknown-devices", "reject"]);
    let factories = sample("factories.json");
    let flags = ["--kind", "factories"];
    let first = server.import(&factories, &flags, 0);
    first.assert_stdout(&[
        "60 accepted, 0 rejected",
        "components: 3 new, 0 already stored",
        "devices: 3 new, 0 already stored",
        "series: 3 new, 0 already stored",
        "targets: 60 new, 0 already stored",
    ]);
    server.stored("factory-2", "sprocket_production", 20).await;
    let changes = server.get("/changes?limit=1000").await;
    let again = server.import(&factories, &flags, 0);
    again.assert_stdout(&["components: 0 new, 3 already", "targets: 0 new, 60 already"]);
    assert_eq!(server.get("/changes?limit=1000").await, changes);

    let points = server.stored("factory-2", "sprocket_production", 20).await;
    assert_eq!(
        points[1],
        json!({ "time": "2021-01-21T04:54:38Z", "value": 28.0 })
    );
    let device = server.get("/devices/factory-2").await;
    let id = device["component"].as_str().unwrap();
    let component = server.get(&format!("/components/{id}")).await;
    assert_eq!(
        (&component["kind"], &component["name"]),
        (&json!("factory"), &json!("factory-2"))
    );
    let targets = "/devices/factory-2/series/sprocket_production/targets";
    let targets = server.get(targets).await;
    assert_eq!(targets["targets"][1]["value"].as_f64(), Some(33.0));

    let list = ["components", "list", "--kind", "factory"];
    let table = server.run(&list, 0);
    table.assert_stdout(&["PARENT", id, "factory-2\n"]);
    let json = server.run(&[&list[..], &["--json"]].concat(), 0);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);

    let mut changed: Value =
        serde_json::from_str(&std::fs::read_to_string(&factories).unwrap()).unwrap();
    let data = &mut changed["factories"][1]["factory"]["chart_data"];
    data["sprocket_production_goal"][1] = json!(99);
    let other = server.file("other.json", &changed.to_string());
    let differs = server.import(&other, &flags, 3);
    differs.assert_stdout(&["factory 2, entry 2: target_differs: the goal is 99.0"]);
    changed["factories"][2]["factory"]["chart_data"]["time"] = json!([1]);
    let unequal = server.file("unequal.json", &changed.to_string());
    let refused = server.import(&unequal, &flags, 2);
    let expected = "/factories/2/factory/chart_data: the arrays must have the same length";
    assert!(refused.stderr.contains(expected), "{refused:?}");

    let flags = ["--kind", "sprockets"];
    let sprockets = sample("sprockets.json");
    server
        .import(&sprockets, &flags, 0)
        .assert_stdout(&["types: 4 new, 0 already stored"]);
    server
        .import(&sprockets, &flags, 0)
        .assert_stdout(&["types: 0 new, 4 already stored"]);
    let types = server.get("/types?category=sprocket&sort=name").await;
    let types = types["types"].as_array().unwrap();
    assert_eq!(types.len(), 4);
    assert_eq!(types[0]["attributes"], types[1]["attributes"]);
    assert_eq!(types[3]["attributes"]["pitch"], json!(2.5));
    // What was deleted is created again, although the key of its request is still known.
    let path = format!("/v1/types/{}", types[3]["id"].as_str().unwrap());
    let uri = format!("{}{path}", server.url).parse().unwrap();
    let deleted = server
        .client
        .send(service::client::Method::DELETE, uri, &[], "".into())
        .await;
    assert!(deleted.unwrap().status.is_success());
    server
        .import(&sprockets, &flags, 0)
        .assert_stdout(&["types: 1 new, 3 already stored"]);
    assert_eq!(
        server.get("/types?category=sprocket").await["types"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    server.stop();
}
