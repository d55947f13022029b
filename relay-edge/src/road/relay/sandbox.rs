//! What a home server answers on the hub's own origin is hostile to the hub's page: it is data there, never a document,
//! a script or a word about the hub itself. Pure.
//!
//! Names of servers have an origin each; there none of this is needed.
//= trust s.5

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request;
use http::response::Parts;
use http::{HeaderMap, HeaderValue};
use url::Url;

/// What a browser may do with an answer that it opens nevertheless: nothing.
const POLICY: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// For what a browser may load from here. A page, a frame, a script, a style, a worker it may not, nor what it will learn
/// to load one day.
const DESTINATIONS: [&[u8]; 5] = [b"empty", b"image", b"video", b"audio", b"track"];

/// Whether a browser says that it wants this for something that could act.
pub(crate) fn is_for_acting(head: &request::Parts) -> bool {
    let mut destinations = head.headers.get_all("sec-fetch-dest").iter();
    destinations.any(|destination| !DESTINATIONS.contains(&destination.as_bytes()))
        // A service worker's script says so in this way, too (Service Workers s.4.1).
        || head.headers.contains_key("service-worker")
}

/// Fields that speak of the origin as a whole, run something, or ask the viewer for a password in the hub's name.
fn is_dropped(name: &str) -> bool {
    name.starts_with("content-security-policy")
        || matches!(
            name,
            "set-cookie"
                | "set-cookie2"
                | "refresh"
                | "link"
                | "clear-site-data"
                | "service-worker-allowed"
                | "strict-transport-security"
                | "alt-svc"
                | "public-key-pins"
                | "expect-ct"
                | "nel"
                | "report-to"
                | "reporting-endpoints"
                | "origin-trial"
                | "origin-agent-cluster"
                | "document-policy"
                | "permissions-policy"
                | "feature-policy"
                | "speculation-rules"
                | "supports-loading-mode"
                | "accept-ch"
                | "critical-ch"
                | "sourcemap"
                | "x-sourcemap"
                | "set-login"
                | "activate-storage-access"
                | "www-authenticate"
                | "authentication-info"
                | "content-location"
                | "x-frame-options"
                | "x-xss-protection"
        )
}

/// Whether a type is one of media, pictures, playlists, subtitles, data and text: nothing that a browser runs.
fn is_harmless(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let plain =
        !subtype.is_empty() && subtype.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte));
    match kind {
        "video" | "audio" => plain && !subtype.ends_with("xml"),
        "image" => plain && !subtype.starts_with("svg") && !subtype.ends_with("xml"),
        _ => matches!(
            essence.as_str(),
            "application/json"
                | "application/problem+json"
                | "application/vnd.apple.mpegurl"
                | "application/x-mpegurl"
                | "application/mpegurl"
                | "application/dash+xml"
                | "application/mp4"
                | "application/ogg"
                | "application/x-subrip"
                | "application/x-ass"
                | "application/x-ssa"
                | "text/plain"
                | "text/vtt"
                | "text/srt"
                | "text/x-ssa"
                | "text/x-ass"
        ),
    }
}

/// Where an answer goes: the path on the hub under which the server's own paths are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The hub's origin, without a slash at its end.
    pub(crate) hub: &'a str,
    /// `/api/v1/servers/{id}/proxy`, or the alias that was asked by.
    pub(crate) prefix: &'a str,
    /// Path of the request as the server got it.
    pub(crate) path: &'a str,
}

/// A redirect leads out of the server's own path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer leads elsewhere")]
pub(crate) struct LeadsElsewhere;

/// Makes an answer's head harmless.
pub(crate) fn confine(head: &mut Parts, place: &Place<'_>) -> Result<(), LeadsElsewhere> {
    let headers = &mut head.headers;
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| is_dropped(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let types: Vec<&HeaderValue> = headers.get_all(CONTENT_TYPE).iter().collect();
    let (one, harmless) = match types.as_slice() {
        [kind] => (true, kind.to_str().is_ok_and(is_harmless)),
        _ => (false, false),
    };
    if !one {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    if !harmless {
        attach(headers);
    }
    keep_private(headers);
    if let Some(location) = headers.remove(LOCATION) {
        match location.to_str().ok().and_then(|location| inside(location, place)) {
            Some(inside) => drop(headers.insert(LOCATION, inside)),
            None if head.status.is_redirection() => return Err(LeadsElsewhere),
            None => {}
        }
    }
    Ok(())
}

/// To be saved, under the name that the server gave it, if it did.
fn attach(headers: &mut HeaderMap) {
    let given = headers.get(CONTENT_DISPOSITION).and_then(|given| given.to_str().ok());
    let attached = given
        .is_some_and(|given| given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("attachment"));
    if !attached {
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
}

/// What was shown to one viewer is for no shared cache: the viewer's credential is not part of the address.
fn keep_private(headers: &mut HeaderMap) {
    let mut directives = vec!["private".to_owned()];
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in field.to_str().unwrap_or("no-store").split(',').map(str::trim) {
            let name = directive.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            if !matches!(name.as_str(), "" | "public" | "private" | "s-maxage" | "proxy-revalidate") {
                directives.push(directive.to_owned());
            }
        }
    }
    if let Ok(value) = HeaderValue::try_from(directives.join(", ")) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// A redirect's target under the proxy path; `None` where it leads out of it.
fn inside(location: &str, place: &Place<'_>) -> Option<HeaderValue> {
    // As a browser would read it, against an origin that is nobody's.
    let base = Url::parse("http://home.invalid").ok()?.join(place.path).ok()?;
    let target = base.join(location).ok()?;
    if !target.username().is_empty() || target.password().is_some() {
        return None;
    }
    // What the server takes for its own address, behind a tunnel that says no host.
    let loopback = matches!(target.scheme(), "http" | "https")
        && matches!(target.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let own = if loopback || target.origin() == base.origin() {
        target.path()
    } else if target.origin().ascii_serialization() == place.hub {
        // The very place where it will be looked for.
        target.path().strip_prefix(place.prefix).filter(|rest| rest.starts_with('/'))?
    } else {
        return None;
    };
    let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
    let fragment = target.fragment().map(|fragment| format!("#{fragment}")).unwrap_or_default();
    HeaderValue::try_from(format!("{}{own}{query}{fragment}", place.prefix)).ok()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    const PREFIX: &str = "/api/v1/servers/1/proxy";

    fn place() -> Place<'static> {
        Place { hub: "https://hub.example", prefix: PREFIX, path: "/api/v1/media/7/playback" }
    }

    fn confined(status: u16, fields: &[(&str, &str)]) -> Result<HeaderMap, LeadsElsewhere> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut head = response.body(()).unwrap().into_parts().0;
        confine(&mut head, &place()).map(|()| head.headers)
    }

    #[test]
    fn a_browser_loads_data_from_here_and_nothing_that_acts() {
        let acts = |fields: &[(&str, &str)]| {
            let mut request = Request::builder().uri("/");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            is_for_acting(&request.body(()).unwrap().into_parts().0)
        };
        assert!(!acts(&[]), "no browser, or an old one");
        for destination in ["empty", "image", "video", "audio", "track"] {
            assert!(!acts(&[("sec-fetch-dest", destination)]), "{destination}");
        }
        for destination in [
            "document",
            "iframe",
            "frame",
            "object",
            "embed",
            "script",
            "style",
            "worker",
            "sharedworker",
            "serviceworker",
            "audioworklet",
            "paintworklet",
            "xslt",
            "fencedframe",
            "manifest",
            "json",
            "Document",
            "",
        ] {
            assert!(acts(&[("sec-fetch-dest", destination)]), "{destination}");
        }
        assert!(acts(&[("sec-fetch-dest", "image"), ("sec-fetch-dest", "script")]));
        assert!(acts(&[("service-worker", "script")]));
    }

    #[test]
    fn every_answer_is_in_the_sandbox() {
        let headers = confined(
            200,
            &[
                ("content-type", "video/mp4"),
                ("content-security-policy", "default-src *; script-src 'unsafe-inline'"),
                ("content-security-policy-report-only", "report-uri https://evil.example"),
                ("x-content-type-options", "sniff"),
            ],
        )
        .unwrap();
        let policies: Vec<_> = headers.get_all(CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!(policies, ["sandbox; default-src 'none'"]);
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!headers.contains_key("content-security-policy-report-only"));
    }

    #[test]
    fn what_is_no_media_picture_list_or_text_is_to_be_saved() {
        let disposition = |kind: &str| {
            let headers = confined(200, &[("content-type", kind)]).unwrap();
            assert_eq!(headers[CONTENT_TYPE], kind);
            headers.get(CONTENT_DISPOSITION).map(|value| value.to_str().unwrap().to_owned())
        };
        for kind in [
            "video/mp4",
            "Video/MP2T",
            "video/x-matroska",
            "audio/mpeg",
            "image/jpeg",
            "image/webp",
            "image/x-icon",
            "application/json",
            "application/json; charset=utf-8",
            "application/vnd.apple.mpegurl",
            "application/x-mpegURL",
            "audio/x-mpegurl",
            "application/dash+xml",
            "text/vtt; charset=utf-8",
            "text/plain",
            "application/x-subrip",
        ] {
            assert_eq!(disposition(kind), None, "{kind}");
        }
        for kind in [
            "text/html",
            "text/html; charset=utf-8",
            "TEXT/HTML",
            " text/html",
            "image/svg+xml",
            "image/SVG+xml; x=y",
            "image/svg",
            "image/x+xml",
            "video/x+xml",
            "application/xhtml+xml",
            "application/xml",
            "text/xml",
            "text/css",
            "text/javascript",
            "application/javascript",
            "application/pdf",
            "application/x-shockwave-flash",
            "application/octet-stream",
            "multipart/x-mixed-replace",
            "message/rfc822",
            "text/plain2",
            "image/png,text/html",
            "image/",
            "image",
            "*/*",
            "",
        ] {
            assert_eq!(disposition(kind).as_deref(), Some("attachment"), "{kind}");
        }
        let nameless = confined(200, &[]).unwrap();
        assert_eq!(nameless[CONTENT_TYPE], "application/octet-stream");
        assert_eq!(nameless[CONTENT_DISPOSITION], "attachment");
        let two = confined(200, &[("content-type", "image/png"), ("content-type", "text/html")]).unwrap();
        assert_eq!(two.get_all(CONTENT_TYPE).iter().collect::<Vec<_>>(), ["application/octet-stream"]);
        assert_eq!(two[CONTENT_DISPOSITION], "attachment");
    }

    #[test]
    fn a_file_keeps_the_name_it_was_given() {
        let named = |kind: &str, given: &str| {
            confined(200, &[("content-type", kind), ("content-disposition", given)]).unwrap()[CONTENT_DISPOSITION]
                .clone()
        };
        assert_eq!(named("text/html", "attachment; filename=a.html"), "attachment; filename=a.html");
        assert_eq!(named("text/html", "inline; filename=a.html"), "attachment");
        assert_eq!(named("text/html", "attachments"), "attachment");
        assert_eq!(named("video/mp4", "inline; filename=a.mp4"), "inline; filename=a.mp4");
    }

    #[test]
    fn nothing_is_said_about_the_hub_itself() {
        for name in [
            "set-cookie",
            "refresh",
            "link",
            "clear-site-data",
            "service-worker-allowed",
            "strict-transport-security",
            "alt-svc",
            "nel",
            "report-to",
            "reporting-endpoints",
            "www-authenticate",
            "sourcemap",
            "origin-trial",
            "speculation-rules",
        ] {
            let headers = confined(200, &[("content-type", "image/png"), (name, "x"), (name, "y")]).unwrap();
            assert!(!headers.contains_key(name), "{name}");
        }
        let kept = [("etag", "\"x\""), ("content-range", "bytes 0-1/2"), ("accept-ranges", "bytes"), ("age", "1")];
        let headers = confined(206, &kept).unwrap();
        for (name, value) in kept {
            assert_eq!(headers[name], value);
        }
    }

    #[test]
    fn no_shared_cache_keeps_what_one_viewer_was_shown() {
        let cached = |given: &[&str]| {
            let fields: Vec<_> = given.iter().map(|given| ("cache-control", *given)).collect();
            confined(200, &fields).unwrap()[CACHE_CONTROL].to_str().unwrap().to_owned()
        };
        assert_eq!(cached(&[]), "private");
        assert_eq!(cached(&["public, max-age=60"]), "private, max-age=60");
        assert_eq!(cached(&["PUBLIC", "s-maxage=60, immutable"]), "private, immutable");
        assert_eq!(cached(&["no-store"]), "private, no-store");
        assert_eq!(cached(&["private, max-age=5"]), "private, max-age=5");
    }

    #[test]
    fn a_redirect_stays_on_the_servers_own_path() {
        let led = |location: &str| {
            let headers = confined(302, &[("location", location)]);
            headers.map(|headers| headers[LOCATION].to_str().unwrap().to_owned())
        };
        let at = |path: &str| Ok(format!("{PREFIX}{path}"));
        assert_eq!(led("/hls/1/master.m3u8?exp=1&sig=a%2Fb"), at("/hls/1/master.m3u8?exp=1&sig=a%2Fb"));
        assert_eq!(led("stream"), at("/api/v1/media/7/stream"));
        assert_eq!(led("?a=b#c"), at("/api/v1/media/7/playback?a=b#c"));
        assert_eq!(led("../8"), at("/api/v1/media/8"));
        assert_eq!(led("http://127.0.0.1:8096/hls/1"), at("/hls/1"));
        assert_eq!(led("http://localhost/hls/1"), at("/hls/1"));
        assert_eq!(led("https://hub.example/api/v1/servers/1/proxy/hls/1"), at("/hls/1"));
        // However far up it asks, the server's root is the top.
        assert_eq!(led("/../../../../app/"), at("/app/"));
        assert_eq!(led("/%2e%2e/%2E./x"), at("/x"));
        assert_eq!(led("/.//evil.example/"), at("//evil.example/"));
        for location in [
            "//evil.example/",
            "/\\evil.example/",
            "\\\\evil.example",
            "https://evil.example/",
            "https:evil.example",
            "https://hub.example/app/",
            "https://hub.example/api/v1/servers/1/proxyfoo",
            "https://hub.example/api/v1/servers/1/proxy/../../../x",
            "https://hub.example/api/v1/servers/2/proxy/x",
            "http://hub.example/api/v1/servers/1/proxy/x",
            "https://hub.example.evil/api/v1/servers/1/proxy/x",
            "http://user:password@localhost/x",
            "http://user@home.invalid/x",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://localhost/x",
        ] {
            assert_eq!(led(location), Err(LeadsElsewhere), "{location}");
        }
    }

    #[test]
    fn where_something_was_made_is_said_only_inside() {
        let headers = confined(201, &[("location", "/api/v1/playlists/1")]).unwrap();
        assert_eq!(headers[LOCATION], "/api/v1/servers/1/proxy/api/v1/playlists/1");
        assert!(!confined(201, &[("location", "https://evil.example/")]).unwrap().contains_key(LOCATION));
        assert!(confined(304, &[]).is_ok());
    }
}
