//! The connection to a server by TLS, by a Unix socket, and with a password from a file, as an operator configures them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use store::{CommittedBatch, DbConfig, MySqlSection, Store, StoreError, Tls};
use testkit::MariaDb;

/// An authority, and a server's certificate from it, as PEM files.
fn certificates(folder: &Path) -> [PathBuf; 3] {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let made = params.signed_by(&key, &ca).unwrap();
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    std::fs::write(&files[0], ca.pem()).unwrap();
    std::fs::write(&files[1], made.pem()).unwrap();
    std::fs::write(&files[2], key.serialize_pem()).unwrap();
    files
}

fn open(section: MySqlSection) -> Result<Store, StoreError> {
    let config = DbConfig { mysql: Some(section), ..DbConfig::default() };
    Store::open(&config, Box::new(|_: CommittedBatch| {}))
}

fn cipher(store: &Store) -> String {
    let sql =
        "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'SSL_CIPHER'";
    store.read_wait(move |db| db.query_row(sql, &[], |row| row.get::<String>(0))).unwrap().unwrap_or_default()
}

#[test]
fn by_tls_the_servers_certificate_is_checked() {
    if !MariaDb::available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [ca, cert, key] = certificates(folder.path());
    let options = [("ca", &ca), ("cert", &cert), ("key", &key)]
        .map(|(name, path)| format!("--ssl-{name}={}", path.display()));
    let server = MariaDb::start_with(&[&options[0], &options[1], &options[2]]).unwrap();
    let plain = open(MySqlSection::at(server.url("chat"))).unwrap();
    assert_eq!(cipher(&plain), "");
    let section = |ca: &Path| MySqlSection {
        tls: Tls::On,
        tls_ca: Some(ca.to_owned()),
        ..MySqlSection::at(server.url("chat"))
    };
    let store = open(section(&ca)).unwrap();
    assert!(!cipher(&store).is_empty());
    let other = tempfile::tempdir().unwrap();
    let error = open(section(&certificates(other.path())[0])).unwrap_err();
    assert!(error.is_unavailable() || matches!(error, StoreError::Internal { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}

#[test]
fn by_parts_a_socket_and_a_password_file() {
    if !MariaDb::available() {
        return;
    }
    let server = MariaDb::start().unwrap();
    let root = open(MySqlSection::at(server.url("chat"))).unwrap();
    root.write_wait(|db| db.execute("CREATE USER chatd@localhost IDENTIFIED BY 'pass word'", &[])).unwrap();
    root.write_wait(|db| db.execute("GRANT ALL ON chat.* TO chatd@localhost", &[])).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pass word\n").unwrap();
    let section = MySqlSection {
        socket: Some(server.socket()),
        password_file: Some(file.path().to_owned()),
        ..MySqlSection::default()
    };
    let store = open(section.clone()).unwrap();
    let who: Option<String> =
        store.read_wait(|db| db.query_row("SELECT CURRENT_USER()", &[], |row| row.get(0))).unwrap();
    assert_eq!(who.as_deref(), Some("chatd@localhost"));
    std::fs::write(file.path(), "wrong").unwrap();
    let error = open(section).unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("denied"), "{error}");
}
