//! TLS: which authorities are trusted, and what the server has to prove to be.

use std::path::Path;
use std::sync::Arc;

use reactor::TlsClient;
use reactor::rustls::crypto::ring;
use reactor::rustls::pki_types::CertificateDer;
use reactor::rustls::pki_types::pem::PemObject as _;
use reactor::rustls::{ClientConfig, RootCertStore};

use crate::error::CliError;

/// TLS with the server at `address`, HOST:PORT, whose certificate is to be signed by an authority in the file `ca`, or by one that this machine trusts.
///
/// # Errors
/// When there are no authorities, or the host is neither a DNS name nor an IP address.
pub(crate) fn client(address: &str, ca: Option<&Path>) -> Result<TlsClient, CliError> {
    let roots = match ca {
        Some(file) => from_file(file)?,
        None => of_this_machine()?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = host(address);
    TlsClient::new(Arc::new(config), host)
        .map_err(|_| CliError::Tls(format!("{host} is neither a DNS name nor an IP address")))
}

/// What stands before the port, without the brackets of IPv6.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn from_file(file: &Path) -> Result<RootCertStore, CliError> {
    let bad = |why: String| CliError::Tls(format!("{}: {why}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))? {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("there is no certificate in it".into())) } else { Ok(roots) }
}

fn of_this_machine() -> Result<RootCertStore, CliError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("an authority of this machine is left out: {error}");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(CliError::Tls("this machine knows no authorities; --ca FILE names some".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_stands_before_the_port() {
        assert_eq!(host("chat.example:6000"), "chat.example");
        assert_eq!(host("[::1]:6000"), "::1");
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            let error = client("localhost:1", Some(&file)).unwrap_err().to_string();
            assert!(error.contains("ca.pem: "), "{error}");
        }
        assert!(client("localhost:1", Some(Path::new("/nowhere"))).is_err());
    }

    #[test]
    fn a_host_that_no_certificate_can_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        assert!(client("localhost:1", Some(&file)).is_ok() && client("[::1]:1", Some(&file)).is_ok());
        let error = client("a b:1", Some(&file)).unwrap_err().to_string();
        assert!(error.contains("neither"), "{error}");
    }
}
