//! TLS to PostgreSQL, by the rules of libpq's `sslmode`.
//!
//! In: the mode and the root certificates. Out: a TLS configuration. `prefer` and `require` encrypt
//! and accept any certificate, `verify-ca` wants one that a root has signed, and `verify-full` also
//! wants the host name in it.
//! Source: <https://www.postgresql.org/docs/current/libpq-ssl.html>.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// What a client demands of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Nothing.
    Off,
    /// A trusted root has signed it.
    Ca(Roots),
    /// A trusted root has signed it, and it is valid for the host name.
    Full(Roots),
}

/// Which root certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Those of the operating system.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// Builds the TLS configuration.
///
/// # Errors
/// A sentence: the root certificates cannot be loaded.
pub(crate) fn config(verification: &Verification) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusted = match verification {
        Verification::Off => None,
        Verification::Ca(roots) => Some(Trusted::load(roots, false, provider.clone())?),
        Verification::Full(roots) => Some(Trusted::load(roots, true, provider.clone())?),
    };
    let verifier = Verifier {
        provider: provider.clone(),
        trusted,
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn load(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = match roots {
        Roots::System => rustls_native_certs::load_native_certs().certs,
        Roots::File(path) => read_pem(path)?,
    };
    if certificates.is_empty() {
        let place = match roots {
            Roots::System => "the operating system".to_owned(),
            Roots::File(path) => path.display().to_string(),
        };
        return Err(format!("sslrootcert: {place} has no certificates"));
    }
    Ok(certificates)
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("sslrootcert: cannot read {}: {error}", path.display()))
}

/// Which certificates are trusted.
#[derive(Debug)]
struct Trusted {
    by_chain: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Trusted {
    fn load(
        roots: &Roots,
        check_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let roots = load(roots)?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let by_chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| format!("sslrootcert: {error}"))?;
        Ok(Self {
            by_chain,
            roots,
            check_name,
        })
    }
}

/// Verifies the server's certificate. Without trusted roots any certificate is accepted: the
/// connection is encrypted, but the server's identity is unknown.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trusted: Option<Trusted>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let by_chain = trusted.by_chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match by_chain {
            // The chain is checked before the name, so that this error means a valid chain.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !trusted.check_name => Ok(ServerCertVerified::assertion()),
            // A self-signed certificate as `openssl req -x509` makes it is a CA, which webpki
            // refuses as a server's certificate. OpenSSL, and so libpq, accepts it when it is
            // trusted itself. Validity dates are checked before this error is returned.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if trusted.roots.iter().any(|root| root == end_entity) =>
            {
                if trusted.check_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
