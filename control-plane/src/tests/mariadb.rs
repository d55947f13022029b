//! A private MariaDB for the tests: the one of `PHLIX_TEST_MARIADB`, else one that this process starts and that ends with
//! it. Where neither works the tests fail, they are never skipped.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use url::Url;

/// `mysql://` URL of a server on which the tests may make and drop databases.
pub(super) fn server_url() -> Url {
    static SERVER: OnceLock<(Url, Option<Child>)> = OnceLock::new();
    let (url, _runs_the_server) = SERVER.get_or_init(|| match std::env::var("PHLIX_TEST_MARIADB") {
        Ok(text) if !text.is_empty() => (Url::parse(&text).expect("PHLIX_TEST_MARIADB is a URL"), None),
        _ => {
            let (url, child) = start();
            (url, Some(child))
        }
    });
    url.clone()
}

/// Starts the script that runs a server until its input ends: the input is a pipe of this process, so when it is gone,
/// however it went, so is the server.
fn start() -> (Url, Child) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/dev/with-mariadb.sh");
    let ready = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut child = Command::new(script)
        .args(["sh", "-c", "printf '%s' \"$PHLIX_TEST_MARIADB\" > \"$0\"; exec cat"])
        .arg(&*ready)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Ok(url) = Url::parse(&std::fs::read_to_string(&ready).unwrap_or_default()) {
            return (url, child);
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("no MariaDB for the tests ({status}); install mariadb-server or set PHLIX_TEST_MARIADB");
        }
        assert!(Instant::now() < deadline, "MariaDB did not come up within 90 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}
