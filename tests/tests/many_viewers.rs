//! Many viewers at once, with a load generator that is not ours.

#![allow(clippy::unwrap_used)]

use phlix_tests::origin::nginx::Nginx;
use phlix_tests::{Engine, World, full_size, media, story};

#[test]
fn every_request_of_many_is_answered() {
    story(async {
        let nginx = Nginx::serve(media::folder()).await;
        let world = World::start(Engine::Sqlite, &nginx.url()).await;
        let ticket = world.ticket().await;
        let count = if full_size() { "50000" } else { "4000" };
        for protocol in ["h2", "h1"] {
            let mut command = tokio::process::Command::new("h2load");
            if protocol == "h1" {
                command.arg("--h1");
            }
            let out = command
                .args(["-n", count, "-c", "8", "-m", "16"])
                .arg(format!("--connect-to=127.0.0.1:{}", world.hub.ready().tls.port()))
                .args(["-H", &format!("x-phlix-ticket: {ticket}")])
                .arg(format!("{}/small", world.server.url))
                .kill_on_drop(true)
                .output()
                .await
                .unwrap();
            let told = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
            println!("{protocol}: {}", told.lines().find(|line| line.starts_with("finished in")).unwrap_or_default());
            let all = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
            assert!(told.contains(&all), "{protocol}: {told}");
            assert!(told.contains(&format!("status codes: {count} 2xx")), "{protocol}: {told}");
        }
    });
}
