//! TLS to PostgreSQL: `sslmode` means what it means in libpq, on a server with a self-signed
//! certificate.

use std::path::Path;
use std::process::Command;

use store::Database;
use testbed::postgres::Postgres;

use crate::support::*;

/// Creates a self-signed certificate for `localhost`. `extension` is an X.509 extension.
fn self_signed(directory: &Path, name: &str, extension: &str) -> (String, String) {
    let path = |suffix: &str| directory.join(format!("{name}.{suffix}"));
    let (certificate, key) = (path("crt"), path("key"));
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", extension])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    let output = openssl.output().expect("openssl is not installed");
    assert!(output.status.success(), "{output:?}");
    (
        certificate.to_str().unwrap().to_owned(),
        key.to_str().unwrap().to_owned(),
    )
}

/// Connects and returns whether the connection is encrypted.
async fn is_encrypted(url: &str) -> Result<bool, String> {
    let database: Database = url.parse()?;
    let client = database
        .connect()
        .await
        .map_err(|error| service::error_chain(&error))?;
    let statement = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(client.query_one(statement, &[]).await.unwrap().get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslmode_means_what_it_means_in_libpq_on_a_server_with_a_self_signed_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (other, _) = self_signed(directory.path(), "other", "basicConstraints=CA:TRUE");
    // As `openssl req -x509` makes them, and as Debian's ssl-cert package does.
    for extension in ["basicConstraints=CA:TRUE", "basicConstraints=CA:FALSE"] {
        let (own, key) = self_signed(directory.path(), "server", extension);
        let server = Postgres::start().unwrap();
        server
            .install_certificate(own.as_ref(), key.as_ref())
            .unwrap();
        let by_address = server.url("postgres");
        let by_name = by_address.replace("127.0.0.1", "localhost");
        let superuser = connect(&by_address).await;
        for statement in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            superuser.batch_execute(statement).await.unwrap();
        }
        until_tls(&by_address).await;
        let encrypted = Ok(true);
        let refused = Err("certificate");
        for (url, parameters, expected) in [
            (&by_address, String::new(), encrypted),
            (&by_address, "?sslmode=disable".into(), Ok(false)),
            (&by_address, "?sslmode=allow".into(), encrypted),
            (&by_address, "?sslmode=prefer".into(), encrypted),
            (&by_address, "?sslmode=require".into(), encrypted),
            (
                &by_address,
                format!("?sslmode=require&sslrootcert={other}"),
                refused,
            ),
            (
                &by_address,
                format!("?sslmode=verify-ca&sslrootcert={own}"),
                encrypted,
            ),
            (
                &by_address,
                format!("?sslmode=verify-ca&sslrootcert={other}"),
                refused,
            ),
            (&by_name, "?sslrootcert=system".into(), refused),
            (
                &by_address,
                format!("?sslmode=require&sslrootcert={own}"),
                encrypted,
            ),
            (
                &by_name,
                format!("?sslmode=verify-full&sslrootcert={own}"),
                encrypted,
            ),
            (
                &by_address,
                format!("?sslmode=verify-full&sslrootcert={own}"),
                refused,
            ),
            (
                &by_name,
                format!("?sslmode=verify-full&sslrootcert={other}"),
                refused,
            ),
            (&by_name, "?sslmode=verify-full".into(), refused),
        ] {
            let url = format!("{url}{parameters}");
            let result = is_encrypted(&url).await;
            match expected {
                Ok(encrypted) => assert_eq!(result, Ok(encrypted), "{extension}, {url}"),
                Err(reason) => {
                    let error = result.expect_err(&format!("{extension}, {url} connects"));
                    assert!(error.contains(reason), "{extension}, {url}: {error}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_used_by_prefer_and_refused_by_require() {
    let site = Site::new();
    let url = &site.database_url;
    assert_eq!(is_encrypted(url).await, Ok(false));
    assert_eq!(
        is_encrypted(&format!("{url}?sslmode=prefer")).await,
        Ok(false)
    );
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = is_encrypted(&format!("{url}?sslmode={mode}"))
            .await
            .unwrap_err();
        assert!(error.contains("TLS"), "{mode}: {error}");
    }
}

/// Waits until the server accepts encrypted connections after its configuration was reloaded.
async fn until_tls(url: &str) {
    let url = format!("{url}?sslmode=require");
    testbed::wait::until_async("PostgreSQL accepts TLS", LIMIT, async || {
        is_encrypted(&url).await.is_ok()
    })
    .await;
}
