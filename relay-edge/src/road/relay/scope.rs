//! What may be asked of a Phlix server through the hub: an allow-list by method, and before it a list of what is never
//! passed on, in whatever spelling. Pure.
//!
//! The media server matches paths as they were sent, so the allow-list does, too, and what is forwarded stays byte for
//! byte. The deny-list is for whatever may stand in front of it or come after it: it is matched against every form that
//! the path takes when it is decoded once, twice, … up to five times.
//= legacy-relay-wire s.3.3

use http::Method;

/// How often a path is decoded, at most. One that still changes then is refused.
const DECODINGS: usize = 5;

/// Why a path is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutOfScope {
    /// Nothing on the allow-list.
    #[error("not on the list of what may be asked")]
    NotListed,
    /// On the deny-list.
    #[error("never passed on")]
    Denied,
    /// Spelt so that two readers could take it for two paths.
    #[error("a path that can be read in two ways")]
    Trick,
}

/// What kind of answer a request in scope has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lists, details, commands.
    Api,
    /// Pictures: posters, avatars, previews.
    Artwork,
    /// A file's bytes.
    Media,
    /// A playlist or segment that the server may first have to encode.
    Encoded,
}

impl Kind {
    /// Whether it counts against the limit on requests. A page of posters, or an hour of segments, is one person
    /// watching.
    pub(crate) fn counts(self) -> bool {
        self == Self::Api
    }
}

/// Whether a method reads (what a viewer with the right to read may ask for). To start an encoding is needed to play at
/// all.
//= library-scope s.5
pub(crate) fn reads(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        || (*method == Method::POST
            && matches(path, &[Exact("api"), Exact("v1"), Exact("media"), Any, Exact("transcode")]))
}

/// Judges a path as it goes to the server (one `/` first, no query).
pub(crate) fn judge(method: &Method, path: &str) -> Result<Kind, OutOfScope> {
    judge_spellings(path)?;
    listed(method, path).ok_or(OutOfScope::NotListed)
}

/// What a path asks for by its look alone: before it is known whether it is in scope.
pub(crate) fn kind(path: &str) -> Kind {
    listed(&Method::GET, path).unwrap_or(Kind::Api)
}

/// One segment of a pattern.
#[derive(Debug, Clone, Copy)]
enum Segment {
    /// This word.
    Exact(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any segment that is not empty: an id.
    Any,
    /// A number between two words.
    Numbered(&'static str, &'static [&'static str]),
}

use Segment::{Any, Exact, Numbered, OneOf};

impl Segment {
    fn takes(self, text: &str) -> bool {
        match self {
            Exact(word) => text == word,
            OneOf(words) => words.contains(&text),
            Any => !text.is_empty(),
            Numbered(before, after) => text.strip_prefix(before).is_some_and(|rest| {
                after.iter().any(|after| {
                    let number = rest.strip_suffix(after);
                    number.is_some_and(|number| {
                        !number.is_empty() && number.len() <= 10 && number.bytes().all(|byte| byte.is_ascii_digit())
                    })
                })
            }),
        }
    }
}

/// Patterns of whole paths, with the kind of answer.
type Anchored = &'static [(&'static [Segment], Kind)];

/// Below these, or these themselves.
const GET_PREFIXES: [(&[&str], Kind); 7] = [
    (&["api", "v1", "libraries"], Kind::Api),
    (&["api", "v1", "media"], Kind::Api),
    (&["api", "v1", "collections"], Kind::Api),
    (&["api", "v1", "music"], Kind::Api),
    (&["api", "v1", "transcode"], Kind::Api),
    (&["hls"], Kind::Encoded),
    (&["dash"], Kind::Encoded),
];

const STREAM: &[Segment] = &[Exact("media"), Any, Exact("stream")];

const PICTURES: &[&str] = &[".jpg", ".png"];

const GET: Anchored = &[
    (STREAM, Kind::Media),
    (&[Exact("api"), Exact("v1"), Exact("artwork"), Any], Kind::Artwork),
    (&[Exact("api"), Exact("v1"), Exact("users"), Any, Exact("avatar")], Kind::Artwork),
    (&[Exact("trickplay"), Any, OneOf(&["sprite.jpg", "sprite.png", "timeline.json", "index.xml"])], Kind::Artwork),
    (&[Exact("trickplay"), Any, Numbered("thumb-", PICTURES)], Kind::Artwork),
    (&[Exact("api"), Exact("v1"), Exact("cast"), Exact("devices")], Kind::Api),
    (&[Exact("api"), Exact("v1"), Exact("cast"), Exact("devices"), Any, Exact("status")], Kind::Api),
    (&[Exact("api"), Exact("v1"), Exact("dlna"), Exact("renderers")], Kind::Api),
    (&[Exact("api"), Exact("v1"), Exact("dlna"), Exact("renderers"), Any, Exact("status")], Kind::Api),
];

const HEAD: Anchored = &[(STREAM, Kind::Media)];

const POST: Anchored = &[
    (
        &[Exact("api"), Exact("v1"), Exact("media"), Any, OneOf(&["transcode", "watched", "unwatched", "favorite"])],
        Kind::Api,
    ),
    (&[Exact("api"), Exact("v1"), Exact("playlists")], Kind::Api),
    (
        &[Exact("api"), Exact("v1"), Exact("cast"), Exact("devices"), Any, OneOf(&["play", "pause", "stop", "seek"])],
        Kind::Api,
    ),
    (
        &[Exact("api"), Exact("v1"), Exact("dlna"), Exact("renderers"), Any, OneOf(&["pause", "stop", "seek"])],
        Kind::Api,
    ),
];

const PUT: Anchored =
    &[(&[Exact("api"), Exact("v1"), Exact("media"), Any, OneOf(&["rating", "like", "poster"])], Kind::Api)];

const DELETE: Anchored =
    &[(&[Exact("api"), Exact("v1"), Exact("media"), Any, OneOf(&["favorite", "rating"])], Kind::Api)];

/// The allow-list.
fn listed(method: &Method, path: &str) -> Option<Kind> {
    let anchored = match *method {
        Method::GET => GET,
        Method::HEAD => HEAD,
        Method::POST => POST,
        Method::PUT => PUT,
        Method::DELETE => DELETE,
        _ => return None,
    };
    if let Some((_, kind)) = anchored.iter().find(|(pattern, _)| matches(path, pattern)) {
        return Some(*kind);
    }
    if *method != Method::GET {
        return None;
    }
    let mut rest = path.strip_prefix('/')?.split('/');
    let given: [Option<&str>; 3] = [rest.next(), rest.next(), rest.next()];
    let (_, kind) = GET_PREFIXES.iter().find(|(prefix, _)| {
        let given = given.iter().take(prefix.len());
        given.copied().eq(prefix.iter().map(|word| Some(*word)))
    })?;
    Some(*kind)
}

fn matches(path: &str, pattern: &[Segment]) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let mut segments = path.split('/');
    pattern.iter().all(|wanted| segments.next().is_some_and(|segment| wanted.takes(segment)))
        && segments.next().is_none()
}

/// Below `/api/v1/libraries/{id}`: what changes a library or rummages in it.
const LIBRARY_DEEDS: [&[&str]; 10] = [
    &["scan"],
    &["rescan"],
    &["match-metadata"],
    &["refresh-metadata"],
    &["prune"],
    &["clear-metadata"],
    &["clear-artwork"],
    &["delete-all"],
    &["regenerate-assets"],
    &["theme-media", "scan"],
];

/// Whether a path, in segments of lower case, is on the deny-list, or below something that is.
fn denied(segments: &[String]) -> bool {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["api", "v1", "music", "scan", ..] => true,
        ["api", "v1", "libraries", _, deed @ ..] => LIBRARY_DEEDS.iter().any(|denied| deed.starts_with(denied)),
        ["api", "v1", "collections", _, deed, ..] => matches!(*deed, "bulk-add" | "refresh"),
        ["api", "v1", "media", _, "match", "apply", ..] | ["api", "v1", "media", _, "subtitles", "download", ..] => {
            true
        }
        _ => false,
    }
}

/// Looks at the path and at each form that it takes when it is decoded.
fn judge_spellings(path: &str) -> Result<(), OutOfScope> {
    // Exactly one slash first: with two, a URL's reader takes what follows for a host.
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(OutOfScope::Trick);
    }
    let mut form = path.as_bytes().to_vec();
    for decoding in 0..=DECODINGS {
        judge_form(&form, decoding)?;
        let decoded = decode(&form);
        if decoded == form {
            return Ok(());
        }
        form = decoded;
    }
    Err(OutOfScope::Trick)
}

/// One form: as sent (0), or decoded so many times.
fn judge_form(form: &[u8], decoding: usize) -> Result<(), OutOfScope> {
    let lower = form.to_ascii_lowercase();
    let has = |needle: &[u8]| lower.windows(needle.len()).any(|window| window == needle);
    let control = form.iter().any(|byte| *byte < 0x20 || *byte == 0x7f);
    // A separator that only shows once the path is decoded makes two paths of one.
    if control || form.contains(&b'\\') || has(b"%2f") || has(b"%5c") {
        return Err(OutOfScope::Trick);
    }
    // The server's own gate refuses these after one decoding.
    //= legacy-relay-wire s.2.2
    if decoding <= 1 && (has(b"..") || has(b"://") || form.contains(&b'?') || form.contains(&b'#')) {
        return Err(OutOfScope::Trick);
    }
    // `;` as one more slash, and as the beginning of parameters that belong to no path.
    let text = String::from_utf8_lossy(&lower);
    for parameters in [false, true] {
        let mut segments = Vec::new();
        for part in text.split('/') {
            let cut = if parameters { 1 } else { usize::MAX };
            for segment in part.split(';').take(cut) {
                let bare = segment.trim_end_matches(['.', ' ']);
                if bare.is_empty() && segment.contains('.') {
                    return Err(OutOfScope::Trick);
                }
                if !bare.is_empty() {
                    segments.push(bare.to_owned());
                }
            }
        }
        if denied(&segments) {
            return Err(OutOfScope::Denied);
        }
    }
    Ok(())
}

/// Percent-decoded once; what is no escape stays as it is.
fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return out,
            [b'%', high, low, after @ ..] => {
                if let (Some(high), Some(low)) = (digit(*high), digit(*low)) {
                    out.push(high << 4 | low);
                    after
                } else {
                    out.push(b'%');
                    &rest[1..]
                }
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "aaaaaaaa-0000-4000-8000-000000000001";

    fn of(method: &str, path: &str) -> Result<Kind, OutOfScope> {
        judge(&method.parse().unwrap(), &path.replace("{id}", ID))
    }

    /// Every path of the scope's table, with its kind.
    const LISTED: [(&str, &str, Kind); 52] = [
        ("GET", "/api/v1/libraries", Kind::Api),
        ("GET", "/api/v1/libraries/", Kind::Api),
        ("GET", "/api/v1/libraries/{id}", Kind::Api),
        ("GET", "/api/v1/libraries/{id}/items", Kind::Api),
        ("GET", "/api/v1/libraries/{id}/scan-status", Kind::Api),
        ("GET", "/api/v1/libraries/{id}/theme-media", Kind::Api),
        ("GET", "/api/v1/media", Kind::Api),
        ("GET", "/api/v1/media/{id}", Kind::Api),
        ("GET", "/api/v1/media/{id}/chapters", Kind::Api),
        ("GET", "/api/v1/media/search", Kind::Api),
        ("GET", "/api/v1/media/{id}/match/search", Kind::Api),
        ("GET", "/api/v1/media/{id}/subtitles", Kind::Api),
        ("GET", "/api/v1/collections", Kind::Api),
        ("GET", "/api/v1/collections/{id}", Kind::Api),
        ("GET", "/api/v1/music/artists", Kind::Api),
        ("GET", "/api/v1/music/artists/The%20Beatles", Kind::Api),
        ("GET", "/api/v1/music/artists/R.E.M.", Kind::Api),
        ("GET", "/api/v1/music/artists/Sigur%20R%C3%B3s", Kind::Api),
        ("GET", "/api/v1/music/albums/100%25", Kind::Api),
        ("GET", "/api/v1/transcode/job-0001/status", Kind::Api),
        ("GET", "/hls/job-0001/master.m3u8", Kind::Encoded),
        ("GET", "/hls/job-0001/720p/1.ts", Kind::Encoded),
        ("GET", "/hls", Kind::Encoded),
        ("GET", "/dash/job-0001/manifest.mpd", Kind::Encoded),
        ("GET", "/media/{id}/stream", Kind::Media),
        ("HEAD", "/media/{id}/stream", Kind::Media),
        ("GET", "/api/v1/artwork/{id}", Kind::Artwork),
        ("GET", "/api/v1/users/{id}/avatar", Kind::Artwork),
        ("GET", "/trickplay/{id}/sprite.jpg", Kind::Artwork),
        ("GET", "/trickplay/{id}/sprite.png", Kind::Artwork),
        ("GET", "/trickplay/{id}/timeline.json", Kind::Artwork),
        ("GET", "/trickplay/{id}/thumb-12.jpg", Kind::Artwork),
        ("GET", "/trickplay/{id}/thumb-0.png", Kind::Artwork),
        ("GET", "/trickplay/{id}/index.xml", Kind::Artwork),
        ("GET", "/api/v1/cast/devices", Kind::Api),
        ("GET", "/api/v1/cast/devices/{id}/status", Kind::Api),
        ("GET", "/api/v1/dlna/renderers", Kind::Api),
        ("GET", "/api/v1/dlna/renderers/{id}/status", Kind::Api),
        ("POST", "/api/v1/media/{id}/transcode", Kind::Api),
        ("POST", "/api/v1/media/{id}/watched", Kind::Api),
        ("POST", "/api/v1/media/{id}/unwatched", Kind::Api),
        ("POST", "/api/v1/media/{id}/favorite", Kind::Api),
        ("POST", "/api/v1/playlists", Kind::Api),
        ("POST", "/api/v1/cast/devices/{id}/play", Kind::Api),
        ("POST", "/api/v1/cast/devices/{id}/seek", Kind::Api),
        ("POST", "/api/v1/dlna/renderers/{id}/pause", Kind::Api),
        ("POST", "/api/v1/dlna/renderers/{id}/stop", Kind::Api),
        ("PUT", "/api/v1/media/{id}/rating", Kind::Api),
        ("PUT", "/api/v1/media/{id}/like", Kind::Api),
        ("PUT", "/api/v1/media/{id}/poster", Kind::Api),
        ("DELETE", "/api/v1/media/{id}/favorite", Kind::Api),
        ("DELETE", "/api/v1/media/{id}/rating", Kind::Api),
    ];

    #[test]
    fn what_is_on_the_list_passes() {
        for (method, path, kind) in LISTED {
            assert_eq!(of(method, path), Ok(kind), "{method} {path}");
        }
    }

    #[test]
    fn another_method_is_another_question() {
        const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"];
        for (_, path, _) in LISTED {
            for method in METHODS {
                let on_the_list = LISTED.iter().any(|(listed, other, _)| *listed == method && *other == path);
                let below_a_prefix = method == "GET"
                    && ["/api/v1/media", "/api/v1/libraries", "/api/v1/collections"]
                        .iter()
                        .any(|p| path.starts_with(p));
                assert_eq!(of(method, path).is_ok(), on_the_list || below_a_prefix, "{method} {path}");
            }
        }
    }

    #[test]
    fn what_is_not_on_the_list_is_refused() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/api"),
            ("GET", "/api/v1"),
            ("GET", "/api/v1/"),
            ("GET", "/api/v1/librariesx"),
            ("GET", "/api/v1/mediafoo/{id}"),
            ("GET", "/api/v1/Media/{id}"),
            ("GET", "/API/v1/media"),
            ("GET", "/api/v1//media"),
            ("GET", "/api/v1/./media/{id}"),
            ("GET", "/api/v1/users"),
            ("GET", "/api/v1/users/me"),
            ("GET", "/api/v1/users/{id}/avatar/"),
            ("GET", "/api/v1/users//avatar"),
            ("GET", "/api/v1/users/a/b/avatar"),
            ("GET", "/api/v1/artwork"),
            ("GET", "/api/v1/artwork/"),
            ("GET", "/api/v1/artwork/{id}/x"),
            ("GET", "/api/v1/admin/settings"),
            ("GET", "/api/v1/playlists"),
            ("GET", "/media/{id}"),
            ("GET", "/media/{id}/stream/"),
            ("GET", "/media/{id}/stream/x"),
            ("GET", "/media//stream"),
            ("GET", "/media/{id}/download"),
            ("GET", "/hlsx/1"),
            ("GET", "/HLS/1"),
            ("GET", "/trickplay/{id}/thumbs.bif"),
            ("GET", "/trickplay/{id}/thumb-.jpg"),
            ("GET", "/trickplay/{id}/thumb-1x.jpg"),
            ("GET", "/trickplay/{id}/thumb-1.jpgx"),
            ("GET", "/trickplay/{id}/thumb-12345678901.jpg"),
            ("GET", "/trickplay/{id}/sprite.gif"),
            ("GET", "/trickplay/sprite.jpg"),
            ("GET", "/api/v1/cast/devices/{id}"),
            ("GET", "/api/v1/cast/devices/{id}/play"),
            ("HEAD", "/api/v1/media"),
            ("HEAD", "/hls/1/a.ts"),
            ("POST", "/api/v1/media"),
            ("POST", "/api/v1/media/{id}"),
            ("POST", "/api/v1/media/{id}/markers"),
            ("POST", "/api/v1/playlists/1"),
            ("POST", "/api/v1/dlna/renderers/{id}/play"),
            ("POST", "/api/v1/libraries"),
            ("PUT", "/api/v1/media/{id}/favorite"),
            ("DELETE", "/api/v1/media/{id}"),
            ("DELETE", "/api/v1/libraries/{id}"),
            ("PATCH", "/api/v1/media/{id}/metadata"),
            ("OPTIONS", "/api/v1/media"),
        ] {
            assert!(of(method, path).is_err(), "{method} {path}");
        }
    }

    const DENIED: [&str; 16] = [
        "/api/v1/music/scan",
        "/api/v1/libraries/{id}/scan",
        "/api/v1/libraries/{id}/rescan",
        "/api/v1/libraries/{id}/match-metadata",
        "/api/v1/libraries/{id}/refresh-metadata",
        "/api/v1/libraries/{id}/prune",
        "/api/v1/libraries/{id}/clear-metadata",
        "/api/v1/libraries/{id}/clear-artwork",
        "/api/v1/libraries/{id}/delete-all",
        "/api/v1/libraries/{id}/regenerate-assets",
        "/api/v1/libraries/{id}/theme-media/scan",
        "/api/v1/collections/{id}/bulk-add",
        "/api/v1/collections/{id}/refresh",
        "/api/v1/media/{id}/match/apply",
        "/api/v1/media/{id}/subtitles/download",
        "/api/v1/media/{id}/subtitles/download/1",
    ];

    #[test]
    fn what_changes_the_server_is_denied_whatever_the_method() {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for path in DENIED {
                assert_eq!(of(method, path), Err(OutOfScope::Denied), "{method} {path}");
            }
        }
    }

    #[test]
    fn a_denied_path_is_denied_in_every_spelling() {
        for spelling in [
            "/api/v1/libraries/{id}/scan/",
            "/api/v1/libraries/{id}//scan",
            "/api/v1/libraries//{id}/scan",
            "/api//v1/libraries/{id}/scan",
            "/api/v1/libraries/{id}/SCAN",
            "/api/v1/libraries/{id}/sc%61n",
            "/api/v1/libraries/{id}/sc%2561n",
            "/api/v1/libraries/{id}/sc%252561n",
            "/api/v1/libraries/{id}/sc%2525252561n",
            "/api/v1/libraries/{id}/%73%63%61%6E",
            "/api/v1/libraries/{id}/scan;x=y",
            "/api/v1/libraries/{id};x=y/scan",
            "/api/v1/libraries/{id};scan",
            "/api/v1/libraries;/{id}/scan",
            "/api/v1/libraries/{id}/scan%3Bx",
            "/api/v1/libraries/{id}/scan.",
            "/api/v1/libraries/{id}/scan%20",
            "/api/v1/libraries/{id}/scan%2e",
            "/api/v1/libraries/{id}/scan.%20.%20",
            "/api/v1/libraries/{id}/scan;/",
            "/%61pi/v1/libraries/{id}/scan",
        ] {
            let judged = of("GET", spelling);
            assert!(matches!(judged, Err(OutOfScope::Denied | OutOfScope::Trick)), "{spelling}: {judged:?}");
        }
    }

    #[test]
    fn tricks_are_refused_outright() {
        for path in [
            "/api/v1/media/..",
            "/api/v1/media/../users",
            "/api/v1/media/.",
            "/api/v1/media/./x",
            "/api/v1/media/%2e%2e/users",
            "/api/v1/media/%2E./users",
            "/api/v1/media/%252e%252e/users",
            "/api/v1/media/..;/users",
            "/api/v1/media/.;x/users",
            "/api/v1/media/x;../users",
            "/api/v1/media/...",
            "/api/v1/media/..%20/users",
            "/api/v1/media/a%2fb",
            "/api/v1/media/a%2Fb",
            "/api/v1/media/a%252fb",
            "/api/v1/media/a%25252Fb",
            "/api/v1/media/a%5cb",
            "/api/v1/media/a%5Cb",
            "/api/v1/media/a\\b",
            "/api/v1/media/a%00b",
            "/api/v1/media/a%0d%0ab",
            "/api/v1/media/a%2500b",
            "/api/v1/media/a\u{7f}b",
            "/api/v1/media/a%09",
            "/api/v1/media/a%3fb",
            "/api/v1/media/a%23b",
            "/api/v1/media/http://x",
            "/api/v1/media/a..b",
            "//api/v1/media",
            "//evil.example/api/v1/media",
            "api/v1/media",
            "",
            "*",
            // Six times escaped.
            "/api/v1/media/%2525252525252541",
        ] {
            assert_eq!(of("GET", path), Err(OutOfScope::Trick), "{path}");
        }
        // Five times is looked through, and is no trick by itself.
        assert_eq!(of("GET", "/api/v1/media/%2525252541"), Ok(Kind::Api));
        // A sign that escapes nothing.
        assert_eq!(of("GET", "/api/v1/music/artists/100%"), Ok(Kind::Api));
        assert_eq!(of("GET", "/api/v1/music/artists/%zz"), Ok(Kind::Api));
    }

    #[test]
    fn reading_is_looking_and_starting_to_play() {
        let reads = |method: &str, path: &str| reads(&method.parse().unwrap(), path);
        assert!(reads("GET", "/api/v1/media"));
        assert!(reads("HEAD", "/media/1/stream"));
        assert!(reads("POST", "/api/v1/media/1/transcode"));
        for (method, path) in
            [("POST", "/api/v1/media/1/watched"), ("PUT", "/api/v1/media/1/rating"), ("POST", "/api/v1/playlists")]
        {
            assert!(!reads(method, path), "{method} {path}");
        }
    }

    #[test]
    fn only_questions_count() {
        for (path, counts) in [
            ("/api/v1/media", true),
            ("/api/v1/transcode/1/status", true),
            ("/nonsense", true),
            ("/media/1/stream", false),
            ("/hls/1/a.ts", false),
            ("/dash/1/a.m4s", false),
            ("/trickplay/1/sprite.jpg", false),
            ("/api/v1/artwork/1", false),
        ] {
            assert_eq!(kind(path).counts(), counts, "{path}");
        }
    }

    /// One character, spelt in a way that some server undoes.
    fn spelt(character: char, how: u8, times: u8) -> String {
        let case = if how & 1 == 0 { character.to_ascii_lowercase() } else { character.to_ascii_uppercase() };
        match how >> 1 {
            1 | 2 if character == '/' => ["//", ";/", "/;v=1/", ". /", "%3b/"][usize::from(times) % 5].to_owned(),
            // Once, or escaped again up to four times more.
            1 if character != '/' => format!("%{}{:02x}", "25".repeat(usize::from(times % 5)), u32::from(case)),
            _ => case.to_string(),
        }
    }

    proptest! {
        #[test]
        fn no_respelling_of_a_denied_path_gets_past(
            path in proptest::sample::select(&DENIED[..]),
            how in proptest::collection::vec((0_u8..6, 0_u8..20), 80),
            end in proptest::sample::select(&["", "/", ".", "%20", ";x=y", "//", ".%20"][..]),
        ) {
            let plain = path.replace("{id}", ID);
            let respelt: String =
                plain.chars().zip(how).map(|(character, (how, times))| spelt(character, how, times)).collect();
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"] {
                let judged = of(method, &format!("{respelt}{end}"));
                prop_assert!(judged.is_err(), "{respelt}{end}: {judged:?}");
            }
        }

        #[test]
        fn no_path_panics_and_what_passes_is_plain(path in "(/|%|[a-z0-9.;\\\\]|%2[eEfF]|%25|ü|/api/v1/media){0,40}") {
            if of("GET", &path).is_ok() {
                prop_assert!(path.starts_with('/') && !path.starts_with("//"));
                prop_assert!(!path.contains('\\') && !path.to_lowercase().contains("%2f"));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
