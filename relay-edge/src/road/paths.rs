//! Paths as an origin might read them. What is forwarded stays as it was sent; this is only for deciding.

/// The segments of a path, as the most lenient origin could take it: percent-decoded up to five times, backslashes as
/// slashes, `;` as the end of a segment, dots resolved, case folded, empty segments left out.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let mut text = path.as_bytes().to_vec();
    for _ in 0..5 {
        let decoded = decode(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let text = String::from_utf8_lossy(&text).to_lowercase().replace('\\', "/");
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split('/') {
        let segment = segment.split([';', '?', '#', '\0']).next().unwrap_or_default();
        match segment.trim() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => {
                let trimmed = segment.trim_end_matches(['.', ' ']);
                segments.push(if trimmed.is_empty() { segment.to_owned() } else { trimmed.to_owned() });
            }
        }
    }
    segments
}

fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, after @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                let value = digit(*high).unwrap_or_default() * 16 + digit(*low).unwrap_or_default();
                out.push(u8::try_from(value).unwrap_or_default());
                after
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    out
}

/// Whether a path is one of the few that media servers open to local callers, which everybody is behind a tunnel
/// (Jellyfin: restart, shutdown, the start-up wizard; also below a base path such as `/emby`).
//= native-tunnel s.5
pub(crate) fn is_local_admin(path: &str) -> bool {
    let segments = segments(path);
    let pairs = segments.windows(2);
    pairs.into_iter().any(|pair| matches!((pair[0].as_str(), pair[1].as_str()), ("system", "restart" | "shutdown")))
        || segments.iter().take(2).any(|segment| segment == "startup")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_an_administrative_path_is_recognised() {
        for path in [
            "/System/Restart",
            "/system/shutdown",
            "/SYSTEM//RESTART",
            "/System/Restart/",
            "/emby/System/Restart",
            "/System/./Restart",
            "/x/../System/Restart",
            "/%53ystem/%52estart",
            "/%2553ystem/Restart",
            "/System%2fRestart",
            "/System\\Restart",
            "/System;a=b/Restart;c",
            "/System/Restart%00",
            "/System/Restart%20",
            "/System/Restart.",
            "/Startup/Configuration",
            "/startup/User",
            "/emby/Startup/Complete",
        ] {
            assert!(is_local_admin(path), "{path}");
        }
        for path in ["/", "/System/Info", "/Restart", "/videos/startup-screen/1", "/a/b/startup"] {
            assert!(!is_local_admin(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/|%|[a-zA-Z0-9.;\\\\]|%2[eEfF]|%25|ü){0,40}") {
            let _ = segments(&path);
        }
    }
}
