//! The model on the command line: seed, lists, documents, and what was imported.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::*;

fn json_of(texts: &Texts) -> Value {
    serde_json::from_str(&texts.stdout).unwrap_or_else(|_| panic!("{texts:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_is_seeded_once_and_listed_and_shown() {
    let server = Server::start(&["--unknown-devices", "reject"]);
    let seed = ["seed", "lv-grid", "--stations", "60"];
    server.run(&seed, 0).assert_stdout(&[
        "lv-grid: 60 stations in ",
        "components: 660 new, 0 already stored",
        "devices: 600 new, 0 already stored",
        "series: 1200 new",
    ]);
    let changes = server.get("/changes?order=desc&limit=1").await;
    server.run(&seed, 0).assert_stdout(&[
        "components: 0 new, 660 already stored",
        "devices: 0 new, 600 already stored",
        "nothing was changed",
    ]);
    assert_eq!(server.get("/changes?order=desc&limit=1").await, changes);

    let list = ["components", "list", "--kind", "station", "--text", "00060"];
    let table = server.run(&list, 0);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{table:?}");
    assert!(lines[1].ends_with("Station 00060"), "{table:?}");
    let station = json_of(&server.run(&[&list[..], &["--json"]].concat(), 0));
    let id = station[0]["id"].as_str().unwrap();
    assert_eq!(station[0]["effective_time_zone"], "Europe/Berlin");
    let shown = server.run(&["components", "show", id], 0);
    shown.assert_stdout(&["attributes           {\"address\":\"Road 60\"}\n"]);

    let devices = ["devices", "list", "--within", id, "--health", "unreachable"];
    let table = server.run(&devices, 0);
    table.assert_stdout(&["DEVICE     HEALTH", "lt-000590  unreachable  yes"]);
    table.assert_stdout(&["current [A], voltage [V]"]);
    let documents = json_of(&server.run(&[&devices[..], &["--json"]].concat(), 0));
    assert_eq!(documents.as_array().unwrap().len(), 10);
    let shown = server.run(&["devices", "show", "lt-000590", "--json"], 0);
    assert_eq!(json_of(&shown), documents[0]);
    // Every page is listed.
    let all = json_of(&server.run(&["components", "list", "--json"], 0));
    assert_eq!(all.as_array().unwrap().len(), 660);
    let none = server.run(&["devices", "list", "--text", "nowhere", "--json"], 0);
    assert_eq!(json_of(&none), json!([]));

    let series = server.run(&["series", "list", "lt-000590"], 0);
    series.assert_stdout(&["METRIC   UNIT  KIND", "voltage  V     gauge  -\n"]);
    let shown = server.run(&["series", "show", "lt-000590", "voltage", "--json"], 0);
    assert_eq!(json_of(&shown)["unit"], "V");
    for (arguments, code, expected) in [
        (&["devices", "show", "nobody"][..], 1, "'nobody'"),
        (&["series", "list", "nobody"], 1, "'nobody'"),
        (&["components", "show", "x"], 1, "'x'"),
        (&["devices", "list", "--health", "well"], 2, "deteriorated"),
        (&["devices", "list", "--near", "1,2"], 2, "radius"),
        (&["components", "list", "--sort", "size"], 2, "created_at"),
        (&["targets", "list", "lt-000590", "power"], 1, "'power'"),
    ] {
        let failed = server.run(arguments, code);
        assert!(
            failed.stderr.contains(expected),
            "{arguments:?}: {failed:?}"
        );
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_printed_again_until_ctrl_c() {
    let server = Server::start(&[]);
    let mut child = Command::new(program())
        .args(["devices", "list", "--watch=100ms", "--url", &server.url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // A header, and after a while the header again.
    for _ in 0..2 {
        assert!(lines.any(|line| line.unwrap().starts_with("DEVICE")));
    }
    let body = reading("m", "p", 1, 1.0).to_string();
    let listen = server.url.strip_prefix("http://").unwrap();
    let response = post_readings(&server.client, listen, "", &[JSON], body).await;
    assert_eq!(response.unwrap().status, 202);
    assert!(lines.any(|line| line.unwrap().starts_with("m ")));
    let interrupt = ["-s", "INT", &child.id().to_string()];
    assert!(
        Command::new("kill")
            .args(interrupt)
            .status()
            .unwrap()
            .success()
    );
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_imported_is_remembered() {
    let server = Server::start(&[]);
    server
        .run(&["import", "--list"], 0)
        .assert_stdout(&["STARTED", "COMPLETE"]);
    let file = server.file("m.csv", "time,value\n1,1\n2,NaN\n3,3\n");
    let flags = ["--device", "m", "--metric", "p"];
    server.import(&file, &flags, 3);
    let factories = sample("factories.json");
    server.import(&factories, &["--kind", "factories"], 0);
    server.import(&sample("sprockets.json"), &["--kind", "sprockets"], 0);
    let table = server.run(&["import", "--list"], 0);
    table.assert_stdout(&["readings", "m.csv\n", "factories.json\n"]);
    let list = json_of(&server.run(&["import", "--list", "--json"], 0));
    let list = list.as_array().unwrap();
    let expected = [
        ("readings", 2, 1),
        ("factories", 60, 0),
        ("sprockets", 4, 0),
    ];
    assert_eq!(list.len(), expected.len());
    for (import, (kind, accepted, left_out)) in list.iter().zip(expected) {
        assert_eq!(import["kind"], kind);
        assert_eq!(import["accepted"], accepted, "{import}");
        assert_eq!(import["left_out"], left_out, "{import}");
        assert_eq!(import["complete"], true, "{import}");
        assert_eq!(import["digest"].as_str().unwrap().len(), 64);
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_interrupted_says_how_to_continue_and_is_not_complete() {
    let server = Server::start(&[]);
    // The import waits for more lines.
    let pipe = server.directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let flags = [
        "--device",
        "m",
        "--metric",
        "p",
        "--batch",
        "2",
        "--url",
        &server.url,
    ];
    let child = Command::new(program())
        .arg("import")
        .arg(&pipe)
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    let rows = b"time,value\n1793491200,1\n1793491201,2\n1793491202,3\n";
    writer.write_all(rows).unwrap();
    server.stored("m", "p", 2).await;
    let interrupt = ["-s", "INT", &child.id().to_string()];
    let sent = Command::new("kill").args(interrupt).status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let texts = Texts::of(&output);
    assert_eq!(output.status.code(), Some(1), "{texts:?}");
    assert!(texts.stderr.contains("import the file again"), "{texts:?}");
    let list = json_of(&server.run(&["import", "--list", "--json"], 0));
    assert_eq!(list[0]["complete"], false, "{list}");
    server.stop();
}
