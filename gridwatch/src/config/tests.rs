use std::io::Write as _;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn parse(toml: &str, arguments: &[&str]) -> Result<Settings, String> {
    let file = file(toml);
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let command = with_environment(Settings::command());
    let path = Some(file.path().to_owned());
    super::parse(command, &arguments, path, |_| false).map_err(|error| match error {
        LoadError::CommandLine(error) => error.to_string(),
        LoadError::Sentence(sentence) => {
            // The name of the file is another one in each test.
            sentence.replace(&file.path().display().to_string(), "FILE")
        }
    })
}

#[test]
fn every_flag_has_an_environment_variable() {
    fn check(command: &clap::Command) {
        if command.get_name() == FLAGS_ONLY {
            return;
        }
        for argument in command
            .get_arguments()
            .filter(|argument| argument.get_long().is_some())
        {
            let name = argument
                .get_env()
                .expect("no environment variable")
                .to_string_lossy();
            assert_eq!(
                name,
                format!("GRIDWATCH_{}", argument.get_id().as_str().to_uppercase())
                    .replace("METRICS", "METRIC")
            );
            assert!(
                argument.is_hide_env_values_set(),
                "{name} may contain a secret"
            );
        }
        command.get_subcommands().for_each(check);
    }
    let command = with_environment(Settings::command());
    command.clone().debug_assert();
    check(&command);
}

#[test]
fn a_flag_overrides_the_file_and_the_file_overrides_the_default() {
    let toml = "amqp-url = 'amqp://file'\ndatabase-url = 'postgres://file'\n\
                [worker]\nwriters = 7\nprefetch = 9\n";
    let settings = parse(toml, &["gridwatch", "worker", "--prefetch", "11"]).unwrap();
    let Command::Worker(worker) = settings.command else {
        panic!("another command")
    };
    assert_eq!(
        (
            worker.writer.writers,
            worker.writer.prefetch,
            worker.writer.max_rows
        ),
        (7, 11, 200_000)
    );
    assert_eq!(worker.amqp.amqp_url.as_deref(), Some("amqp://file"));
}

#[test]
fn the_error_names_what_is_wrong_with_a_file() {
    for (toml, expected) in [
        ("databse-url = 'x'", "FILE:1: unknown key 'databse-url'"),
        ("databse-url = 'x'", "the nearest is 'database-url'"),
        ("[worker]\nfetch = 2", "the nearest is 'prefetch'"),
        ("[wroker]\nwriters = 2", "the nearest is '[worker]'"),
        (
            "\n[worker]\nwritters = 2",
            "FILE:3: unknown key 'writters' in [worker]",
        ),
        (
            "\n[wroker]\nwriters = 2",
            "FILE:2: unknown section '[wroker]'",
        ),
        ("[wroker]", "FILE:1: unknown section '[wroker]'"),
        ("log = ['a']", "FILE:1: 'log' must be a string"),
        ("log = 'info'\nlog-format text", "FILE:2: "),
        ("log = 'info'\n\nlog = 'warn'\n", "FILE:3: duplicate key"),
        (
            "log = 'info'\n[worker]\nwriters = 1\nwriters = 2\n",
            "FILE:4: duplicate key",
        ),
        (
            "writers = 2\n[worker]\nwriters = 0",
            "FILE:3: writers: '0': expected a whole number from 1 to 1000",
        ),
        (
            "writers = 0\n[standalone]\nwriters = 0",
            "FILE:1: writers: '0': expected",
        ),
        ("log = 'debgu'", "FILE:1: log: 'debgu': "),
        (
            "log-format = 'xml'",
            "FILE:1: log-format: 'xml': expected 'text' or 'json'",
        ),
        (
            "grace = '10'",
            "FILE:1: grace: '10': expected a time from 0s to 1day",
        ),
    ] {
        let error = parse(toml, &["gridwatch", "worker"]).unwrap_err();
        assert!(
            error.contains(expected),
            "expected {expected:?}, got {error:?}"
        );
    }
}

#[test]
fn the_demo_ignores_the_urls_of_a_file() {
    let toml = "amqp-url = 'amqp://mq'\ndatabase-url = 'postgres://db'\n";
    let settings = parse(toml, &["gridwatch", "demo"]).unwrap();
    let Command::Demo(demo) = settings.command else {
        panic!("another command")
    };
    assert_eq!((demo.amqp_url, demo.database_url), (None, None));
    let error = parse("[demo]\nfleet = 1\n", &["gridwatch", "demo"]).unwrap_err();
    assert!(error.contains("flags only"), "{error}");
}

/// docs/gridwatch.toml, as it is, and with the settings that have no default.
#[test]
fn the_sample_configuration_is_valid_and_complete() {
    let sample = include_str!("../../../docs/gridwatch.toml");
    let all: Vec<&str> = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // A file with a URL is instead of the URL.
            Some(setting) if setting.contains("-url-file = ") => line,
            Some(setting) if setting.starts_with(char::is_lowercase) => setting,
            _ => line,
        })
        .collect();
    let all = all.join("\n");
    let urls = ["--amqp-url", "amqp://mq", "--database-url", "postgres://db"];
    parse(sample, &[&["gridwatch", "ingest-api"], &urls[..]].concat()).unwrap();
    for command in ["ingest-api", "worker", "query-api", "standalone", "migrate"] {
        parse(&all, &["gridwatch", command]).unwrap_or_else(|error| panic!("{error}"));
    }
    let table: toml::Table = all.parse().unwrap();
    let has = |name: &str| {
        let sections = table.values().filter_map(toml::Value::as_table);
        table.contains_key(name) || sections.into_iter().any(|s| s.contains_key(name))
    };
    for command in Settings::command().get_subcommands() {
        if ["ingest-api", "worker", "query-api", "standalone"].contains(&command.get_name()) {
            let flags = command.get_arguments().filter_map(clap::Arg::get_long);
            for flag in flags.filter(|flag| *flag != "help") {
                let in_a_comment = || sample.contains(&format!("\n#{flag} = "));
                let is_there = has(flag) || flag.ends_with("-url-file") && in_a_comment();
                assert!(is_there, "--{flag} is missing in docs/gridwatch.toml");
            }
        }
    }
}

#[test]
fn a_wrong_value_is_reported_with_the_place_that_it_came_from() {
    let toml = "[ingest-api]\nsink = 'kafka'\n";
    let error = parse(toml, &["gridwatch", "ingest-api"]).unwrap_err();
    assert_eq!(error, "FILE:2: sink: 'kafka': expected queue or direct");
    let long = format!("sink = \"a\\n{}\"", "x".repeat(100));
    let error = parse(&long, &["gridwatch", "ingest-api"]).unwrap_err();
    let shortened = format!("'a\\n{}…'", "x".repeat(58));
    assert_eq!(
        error,
        format!("FILE:1: sink: {shortened}: expected queue or direct")
    );
    // A flag overrides the file, so that the value of the file is not blamed.
    let flags = ["gridwatch", "ingest-api", "--sink", "mqtt"];
    let error = parse(toml, &flags).unwrap_err();
    assert!(error.contains("'mqtt' for '--sink <SINK>'"), "{error}");

    // A variable that is set overrides the file. clap reads it from the environment itself; this is
    // the same error.
    let flags: Vec<OsString> = flags.iter().map(OsString::from).collect();
    let error = Settings::command()
        .try_get_matches_from(&flags)
        .unwrap_err();
    let without_flag = &flags[..2];
    let is_set = |name: &str| name == "GRIDWATCH_SINK";
    let sentence = explain::explain(&error, without_flag, None, is_set).unwrap();
    assert_eq!(sentence, "GRIDWATCH_SINK: 'mqtt': expected queue or direct");
    assert_eq!(explain::explain(&error, &flags, None, is_set), None);
}

#[test]
fn limits_of_zero_are_refused_with_the_allowed_range() {
    for (flag, zero, range) in [
        ("--max-pending", "0", "from 1 to 1000000000"),
        ("--max-body-bytes", "0", "from 1 to 1GiB"),
        ("--max-body-bytes", "0MiB", "from 1 to 1GiB"),
        ("--max-series", "0", "from 1 to 2000000000"),
        ("--max-in-flight", "0", "from 1 to 10000"),
        ("--max-connections", "0", "from 1 to 1000000"),
        ("--writers", "0", "from 1 to 1000"),
        ("--prefetch", "0", "from 1 to 2000"),
        ("--max-rows", "0", "from 1 to 10000000"),
        ("--spool-max-bytes", "0", "from 1MiB to 1024TiB"),
        ("--deliver-timeout", "0s", "from 1ms to 1day"),
        ("--spool-after", "0s", "from 1ms to 1day"),
        ("--horizon", "0s", "from 1ms to"),
        ("--threads", "0", "from 1 to 1024"),
    ] {
        let error = parse("", &["gridwatch", "ingest-api", flag, zero]).unwrap_err();
        assert!(
            error.contains(flag) && error.contains(range),
            "{flag}: {error}"
        );
    }
}

#[test]
fn sizes_with_units_and_addresses_with_names_are_settings() {
    let toml = "spool-max-bytes = '1GB'\nmax-body-bytes = '64k'\n[standalone]\n\
                listen = 'localhost:8080'\n";
    let flags = [
        "gridwatch",
        "standalone",
        "--data",
        "d",
        "--max-body-bytes",
        "16MiB",
    ];
    let Command::Standalone(standalone) = parse(toml, &flags).unwrap().command else {
        panic!("another command")
    };
    let sizes = (
        standalone.front_end.max_body_bytes,
        standalone.spool_options.spool_max_bytes,
    );
    assert_eq!(sizes, (16 << 20, 1_000_000_000));
    assert_eq!(standalone.front_end.listen.to_string(), "localhost:8080");
}

#[test]
fn a_setting_that_is_missing_is_reported_with_the_ways_to_give_it() {
    let error = parse("", &["gridwatch", "worker"]).unwrap_err();
    for expected in [
        "--amqp-url is missing: give it as the flag --amqp-url URL",
        "as GRIDWATCH_AMQP_URL in the environment",
        "in a file with --amqp-url-file FILE",
        "as amqp-url in the TOML file of --config",
        "--database-url is missing",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let error = parse("", &["gridwatch", "standalone"]).unwrap_err();
    assert!(error.contains("the flag --data DIR"), "{error}");
}

#[test]
fn a_url_with_a_password_can_be_in_a_file_of_its_own() {
    let secret = file("  amqp://user:password@mq/x\n\n");
    let path = secret.path().to_str().unwrap();
    let database = "database-url = 'postgres://file'\n";
    let worker = ["gridwatch", "worker"];
    let by_flag = (database.to_owned(), vec!["--amqp-url-file", path]);
    let by_toml = (format!("amqp-url-file = '{path}'\n{database}"), vec![]);
    for (toml, flags) in [by_flag, by_toml] {
        let settings = parse(&toml, &[&worker[..], &flags].concat()).unwrap();
        let Command::Worker(worker) = settings.command else {
            panic!("another command")
        };
        let url = worker.amqp.amqp_url.as_deref();
        assert_eq!(url, Some("amqp://user:password@mq/x"));
    }
    let long = "x".repeat(70_000);
    for (content, expected) in [
        ("", "the file is empty; it must hold the URL"),
        (" \n", "the file is empty"),
        (&long, "the file is longer than 64 KiB"),
    ] {
        let secret = file(content);
        let path = secret.path().to_str().unwrap();
        let flags = ["gridwatch", "migrate", "--database-url-file", path];
        let error = parse("", &flags).unwrap_err();
        let place = format!("--database-url-file {path}: ");
        assert!(
            error.starts_with(&place) && error.contains(expected),
            "{error}"
        );
    }
    for (path, expected) in [
        ("/nowhere", "cannot read the file: No such file"),
        ("/nowhere", "; check the path"),
        ("/", "it must be a text file that this user can read"),
    ] {
        let flags = ["gridwatch", "query-api", "--database-url-file", path];
        let error = parse("", &flags).unwrap_err();
        let place = format!("--database-url-file {path}: ");
        assert!(
            error.starts_with(&place) && error.contains(expected),
            "{error}"
        );
    }
    let flags = ["--amqp-url", "amqp://mq", "--amqp-url-file", path];
    for command in ["worker", "standalone"] {
        let toml = format!("data = 'd'\n{database}");
        let error = parse(&toml, &[&["gridwatch", command], &flags[..]].concat()).unwrap_err();
        assert!(
            error.contains("are both given; give one of them"),
            "{error}"
        );
    }
    // A front end without a queue needs no URL of RabbitMQ.
    let direct = ["gridwatch", "ingest-api", "--sink", "direct"];
    parse(database, &direct).unwrap();
    let error = parse(database, &direct[..2]).unwrap_err();
    assert!(error.starts_with("--amqp-url is missing: "), "{error}");
}

#[test]
fn a_misspelled_variable_is_reported_with_the_nearest_name() {
    let names = [
        "GRIDWATCH_WRITTERS",
        "GRIDWATCH_DATABSE_URL",
        // These are no mistakes.
        "GRIDWATCH_WRITERS",
        "GRIDWATCH_CONFIG",
        "GRIDWATCH_SERVICE_HOST",
        "GRIDWATCH_PORT_8080_TCP",
        "PATH",
    ];
    let command = with_environment(Settings::command());
    let warnings = explain::unknown_variables(&command, names.iter().map(OsStr::new));
    let [first, second] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    assert!(
        first.contains("GRIDWATCH_WRITTERS is not a setting")
            && first.ends_with("GRIDWATCH_WRITERS"),
        "{first}"
    );
    assert!(second.ends_with("GRIDWATCH_DATABASE_URL"), "{second}");
}

#[test]
fn a_missing_file_is_reported_with_what_to_check() {
    let path = Some(PathBuf::from("/nowhere.toml"));
    let command = with_environment(Settings::command());
    let Err(LoadError::Sentence(error)) = super::parse(command, &[], path, |_| false) else {
        panic!("no error")
    };
    assert!(
        error.starts_with("cannot read /nowhere.toml: ") && error.contains("--config"),
        "{error}"
    );
}

#[test]
fn the_help_lists_the_exit_codes() {
    let help = Settings::command().render_help().to_string();
    for line in [
        "0    done",
        "1    failed",
        "2    a flag",
        "3    import",
        "130  ",
    ] {
        assert!(help.contains(line), "{help}");
    }
}

/// docs/COMMANDS.md has a section for every command.
#[test]
fn every_command_is_documented() {
    let page = include_str!("../../../docs/COMMANDS.md");
    for command in Settings::command().get_subcommands() {
        let name = command.get_name();
        let section = format!("\n## gridwatch {name}\n");
        assert!(page.contains(&section), "{name} has no section");
        for subcommand in command.get_subcommands() {
            let full = format!("gridwatch {name} {}", subcommand.get_name());
            assert!(page.contains(&full), "{full} is missing");
        }
    }
}

/// The ports are not those of Prometheus (9090) and its Pushgateway (9091), and one of each process
/// fits on one machine.
#[test]
fn the_default_ports_are_those_of_the_documentation() {
    let page = include_str!("../../../docs/COMMANDS.md");
    for (command, flag, expected) in [
        ("ingest-api", "listen", "127.0.0.1:8080"),
        ("ingest-api", "admin", "127.0.0.1:8081"),
        ("standalone", "listen", "127.0.0.1:8080"),
        ("standalone", "admin", "127.0.0.1:8081"),
        ("demo", "admin", "127.0.0.1:8081"),
        ("worker", "admin", "127.0.0.1:8082"),
        ("query-api", "listen", "127.0.0.1:8090"),
        ("query-api", "admin", "127.0.0.1:8091"),
    ] {
        let settings = Settings::command();
        let command = settings.find_subcommand(command).unwrap();
        let mut flags = command.get_arguments();
        let argument = flags.find(|argument| argument.get_long() == Some(flag));
        let defaults = argument.unwrap().get_default_values();
        assert_eq!(defaults, [expected], "{flag}");
        assert!(page.contains(expected), "{expected} is not documented");
    }
}
