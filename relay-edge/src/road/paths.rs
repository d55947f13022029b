//! Paths as an origin might read them. What is forwarded stays as it was sent; this is only for deciding.

/// The segments of a path, as the most lenient origin could take it: percent-decoded up to five times, backslashes as
/// slashes, `;` as the end of a segment, dots resolved, case folded (`ſ` is an `s` to who compares upper case), empty
/// segments left out.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let mut text = path.as_bytes().to_vec();
    for _ in 0..5 {
        let decoded = decode(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let text = String::from_utf8_lossy(&text).to_uppercase().to_lowercase().replace('\\', "/");
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

/// Percent-decoded once.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
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

/// The steps of Jellyfin's start-up wizard.
const WIZARD: [&str; 5] = ["complete", "configuration", "firstuser", "remoteaccess", "user"];

/// Whether a path is one of the few that media servers open to local callers, which everybody is behind a tunnel
/// (Jellyfin: restart, shutdown, the start-up wizard). Under any base path: where the server has one, we are not told.
//= native-tunnel s.5
pub(crate) fn is_local_admin(path: &str) -> bool {
    let segments = segments(path);
    let mut pairs = segments.windows(2);
    pairs.any(|pair| match (pair[0].as_str(), pair[1].as_str()) {
        ("system", "restart" | "shutdown") => true,
        ("startup", step) => WIZARD.contains(&step),
        _ => false,
    }) || segments.iter().take(2).any(|segment| segment == "startup")
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
            "/\u{17f}ystem/Re\u{17f}tart",
            "/%c5%bfystem/Restart",
        ] {
            assert!(is_local_admin(path), "{path}");
        }
        for path in [
            "/",
            "/System/Info",
            "/System/Info/Public",
            "/System/ActivityLog/Entries",
            "/Restart",
            "/videos/startup-screen/1",
            "/a/b/startup",
            "/a/b/startup/index.html",
            "/ecosystem/restart",
            "/System/Restarting",
            "/Users/AuthenticateByName",
            "/Sessions/Playing",
        ] {
            assert!(!is_local_admin(path), "{path}");
        }
    }

    /// Jellyfin's routes below base paths as owners set them, and the two that it takes off by itself.
    const BASES: [&str; 6] = ["", "/emby", "/mediabrowser", "/jellyfin", "/media/jellyfin", "/a/b/c/d"];
    const ROUTES: [&str; 7] = [
        "/System/Restart",
        "/System/Shutdown",
        "/Startup/Configuration",
        "/Startup/User",
        "/Startup/FirstUser",
        "/Startup/RemoteAccess",
        "/Startup/Complete",
    ];

    #[test]
    fn a_base_path_hides_nothing() {
        for base in BASES {
            for route in ROUTES {
                assert!(is_local_admin(&format!("{base}{route}")), "{base}{route}");
                assert!(
                    !is_local_admin(&format!("{base}{route}ing")) || route.starts_with("/Startup"),
                    "{base}{route}ing"
                );
            }
        }
    }

    /// One character, spelt in a way that some server undoes.
    fn spelt(character: char, how: u8, times: u8) -> String {
        let case = if how & 1 == 0 { character.to_ascii_lowercase() } else { character.to_ascii_uppercase() };
        match how >> 1 {
            1 | 2 if character == '/' => ["//", "/./", "\\", "/x/../", "/;v=1/"][usize::from(times) % 5].to_owned(),
            1 => {
                // Once, or escaped again up to three times more.
                let escapes = "25".repeat(usize::from(times % 4));
                format!("%{escapes}{:02x}", u32::from(case))
            }
            _ => case.to_string(),
        }
    }

    proptest! {
        #[test]
        fn no_respelling_gets_past(
            base in proptest::sample::select(&BASES[..]),
            route in proptest::sample::select(&ROUTES[..]),
            how in proptest::collection::vec((0_u8..6, 0_u8..20), 48),
            end in proptest::sample::select(&["", "/", ".", "%20", ";x=y", "%00", "/?a=b", "//"][..]),
        ) {
            let plain = format!("{base}{route}");
            let respelt: String = plain.chars().zip(how).map(|(character, (how, times))| spelt(character, how, times)).collect();
            let path = format!("{respelt}{end}");
            prop_assert!(is_local_admin(&path), "{}", path);
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/|%|[a-zA-Z0-9.;\\\\]|%2[eEfF]|%25|ü){0,40}") {
            let _ = segments(&path);
        }
    }
}
