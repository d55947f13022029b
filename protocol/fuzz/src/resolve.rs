//! Host and path: what is taken for a name of a server, and what may not reach an origin.

use http::{Request, Uri, Version};
use phlix_relay_edge::fuzzing::{self, Place};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let sni = match flags & 3 {
        0 => None,
        1 => Some("a.hub.example"),
        _ => Some("hub.example"),
    };
    let target = input.some();
    if let Ok(path) = std::str::from_utf8(target) {
        let segments = fuzzing::segments(path);
        assert!(segments.iter().all(|segment| !segment.is_empty() && segment != ".." && !segment.contains('/')));
        let _ = fuzzing::is_local_admin(path);
    }
    let Ok(uri) = Uri::try_from(target) else { return };
    let mut request = Request::builder().uri(uri.clone()).version(match flags >> 2 & 3 {
        0 => Version::HTTP_11,
        1 => Version::HTTP_10,
        2 => Version::HTTP_2,
        _ => Version::HTTP_3,
    });
    request = request.method(match flags >> 4 & 3 {
        0 => "GET",
        1 => "CONNECT",
        2 => "TRACE",
        _ => "POST",
    });
    let host = input.some();
    if !host.is_empty() {
        request = request.header("host", host);
    }
    for line in input.rest().split(|byte| *byte == b'\n') {
        if let Some(at) = line.iter().position(|byte| *byte == b':') {
            request = request.header(&line[..at], &line[at + 1..]);
        }
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    let place = fuzzing::resolve(&head, flags & 0x40 != 0, sni);
    assert_eq!(place, fuzzing::resolve(&head, flags & 0x40 != 0, sni));
    if let Place::Name(name) = place {
        assert!(name.ends_with(".hub.example"), "{name} is not under the domain");
        assert!(!name.contains("..") && name.len() <= 253);
        let first = fuzzing::segments(head.uri.path()).into_iter().next();
        assert!(first.as_deref() != Some(".phlix"), "our own pages never reach an origin");
        if flags & 0x40 == 0 {
            assert_eq!(Some(name.as_str()), sni, "a connection is for one name");
        }
    }
}
