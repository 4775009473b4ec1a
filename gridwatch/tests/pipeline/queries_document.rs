//! The programs of docs/QUERIES.md: each prints what the document says.
//!
//! A block that is marked `python` or `sql` runs as it is written, except for the address of the
//! server, and the block behind it is what it prints. `scripts/setup.sh docs` installs pandas and
//! pyarrow.

use std::process::Command;

use crate::support::*;

const ADDRESS: &str = "127.0.0.1:8090";

/// A block of the document, and the block behind it.
struct Example {
    /// The number of its first line.
    line: usize,
    language: &'static str,
    program: String,
    output: String,
}

fn examples(document: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        let body = body.join("\n");
        let language = match language {
            "python" => "python",
            "sql" => "sql",
            "" => {
                if let Some(example) = examples.last_mut().filter(|own| own.output.is_empty()) {
                    example.output = body;
                }
                continue;
            }
            _ => continue,
        };
        examples.push(Example {
            line: number + 2,
            language,
            program: body,
            output: String::new(),
        });
    }
    examples
}

/// Without the spaces that programs print at the ends of lines.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Standalone on the database of the site, with the day of a meter.
fn serve_the_meter(site: &mut Site) -> Standalone {
    site.books_cannot_balance("an import of standalone has no front end of the site");
    let standalone = Standalone::of_site(site);
    let file = root().join("gridwatch/data/meter-2019-01-17.csv");
    let url = format!("http://{}", site.listen);
    let imported = gridwatch(&[
        "import",
        file.to_str().unwrap(),
        "--device",
        "meter-1",
        "--metric",
        "energy",
        "--time-zone",
        "UTC",
        "--url",
        &url,
    ]);
    // One row has no value.
    assert_eq!(imported.status.code(), Some(3), "{imported:?}");
    standalone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_of_the_document_print_what_it_says() {
    let document = std::fs::read_to_string(root().join("docs/QUERIES.md")).unwrap();
    let examples = examples(&document);
    let count = |language| {
        examples
            .iter()
            .filter(|own| own.language == language)
            .count()
    };
    assert_eq!((count("python"), count("sql")), (3, 2));
    let tool = root().join("target/python-docs");
    let unreachable = std::fs::read_to_string(tool.join("unreachable"));
    let python = tool.join("bin/python");
    assert!(
        unreachable.is_ok() || python.is_file(),
        "{} is missing: run 'scripts/setup.sh docs'",
        python.display()
    );
    let mut site = Site::new();
    let standalone = serve_the_meter(&mut site);
    site.wait_in_ledger(95).await;
    site.execute("UPDATE series SET unit = 'kWh'").await;
    for example in &examples {
        let mut command = match (example.language, &unreachable) {
            ("python", Ok(reason)) => {
                eprintln!("skipped: PyPI cannot be reached, so that pandas is missing: {reason}");
                continue;
            }
            ("python", Err(_)) => {
                let mut command = Command::new(&python);
                command
                    .arg("-c")
                    .arg(example.program.replace(ADDRESS, &site.listen));
                command
            }
            _ => {
                let mut command = Command::new("psql");
                command.args(["-X", "-v", "ON_ERROR_STOP=1", "-c", &example.program]);
                command.arg(&site.database_url);
                command
            }
        };
        let line = example.line;
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap();
        let output = output.unwrap_or_else(|error| panic!("line {line}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "docs/QUERIES.md:{line}: {text}\n{errors}"
        );
        assert_eq!(
            trimmed(&text),
            trimmed(&example.output),
            "docs/QUERIES.md:{line}: {text}"
        );
    }
    standalone.stop();
}
