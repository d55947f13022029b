//! The browser's sign-in at a protected name, step by step as a browser makes it, and what happens
//! to whoever changes a step.

#![allow(clippy::unwrap_used)]

use http::{HeaderMap, Method};
use phlix_tests::api::Api;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{self, Protocol, empty};
use phlix_tests::{Engine, World, on_both_databases};
use url::Url;

on_both_databases!(
    whoever_is_signed_in_at_the_hub_lands_signed_in_where_they_wanted,
    a_code_is_good_once_for_its_own_browser_and_name,
    the_way_back_leads_nowhere_else,
    who_may_not_is_told_so,
);

/// One browser at a name: what it holds there.
struct Browser<'a> {
    world: &'a World,
    cookies: Vec<String>,
}

struct Page {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Page {
    fn location(&self) -> String {
        assert!(matches!(self.status, 302 | 303), "{}: {}", self.status, self.body);
        self.headers["location"].to_str().unwrap().to_owned()
    }
}

impl<'a> Browser<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, cookies: Vec::new() }
    }

    /// Navigates to a path or URL of the name.
    async fn go(&mut self, to: &str) -> Page {
        let base = Url::parse(&self.world.server.url).unwrap();
        let url = base.join(to).unwrap();
        assert_eq!(url.origin(), base.origin(), "{to}");
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut client = self.world.viewer(Protocol::H2).await;
        let mut request = client
            .request(Method::GET, path)
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-site", "cross-site");
        if !self.cookies.is_empty() {
            request = request.header("cookie", self.cookies.join("; "));
        }
        let answer = client.send(request.body(empty()).unwrap()).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            if cookie.starts_with("__Host-phlix") {
                for attribute in ["Secure", "HttpOnly", "Path=/"] {
                    assert!(cookie.contains(attribute), "without {attribute}: {cookie}");
                }
                assert!(!cookie.contains("Domain"), "{cookie}");
            }
            let (name, rest) = cookie.split_once('=').unwrap();
            self.cookies.retain(|known| known.split('=').next() != Some(name));
            let value = rest.split(';').next().unwrap();
            if !value.is_empty() && !cookie.contains("Max-Age=0") {
                self.cookies.push(format!("{name}={value}"));
            }
        }
        let body = String::from_utf8_lossy(&viewer::read(answer).await.unwrap()).into_owned();
        Page { status, headers, body }
    }

    fn holds(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie.starts_with(&format!("{name}=")))
    }

    /// Goes to a page of the origin and on until the browser must ask the hub; what it asks.
    async fn until_the_hub(&mut self, path: &str) -> String {
        let mut to = self.go(path).await.location();
        for _ in 0..3 {
            if to.contains("/authorize-name") {
                return to;
            }
            to = self.go(&to).await.location();
        }
        panic!("never sent to the hub, but to {to}");
    }
}

/// Follows the link to the hub in that person's browser.
async fn ask_hub(person: &Api, url: &str) -> phlix_tests::api::Answer {
    let url = Url::parse(url).unwrap();
    assert_eq!(url.origin().ascii_serialization(), person.origin());
    person
        .with_header("sec-fetch-mode", "navigate")
        .with_header("sec-fetch-dest", "document")
        .get(&url[url::Position::BeforePath..])
        .await
}

fn location(answer: &phlix_tests::api::Answer) -> String {
    assert!(matches!(answer.status.as_u16(), 302 | 303), "{} {:?}", answer.status, answer.body);
    answer.headers["location"].to_str().unwrap().to_owned()
}

async fn whoever_is_signed_in_at_the_hub_lands_signed_in_where_they_wanted(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let owner = world.hub.api().login_as_browser("owner").await;
    let mut browser = Browser::new(&world);
    let wanted = "/echo?a=b&c=%2F";
    let at_hub = browser.until_the_hub(wanted).await;

    // Signed out, the hub sends to its sign-in page and keeps what was asked.
    let sign_in = location(&ask_hub(&world.hub.api(), &at_hub).await);
    assert!(sign_in.contains("/app/login?next="), "{sign_in}");

    let finish = location(&ask_hub(&owner, &at_hub).await);
    assert!(finish.starts_with(&format!("{}/.phlix/finish?", world.server.url)), "{finish}");
    let back = browser.go(&finish).await.location();
    assert!(back == wanted || back == format!("{}{wanted}", world.server.url), "{back}");
    assert!(browser.holds("__Host-phlix-v") && !browser.holds("__Host-phlix-start"), "{:?}", browser.cookies.len());
    let page = browser.go(&back).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains(wanted) && !page.body.to_lowercase().contains("__host-phlix"), "{}", page.body);
}

async fn a_code_is_good_once_for_its_own_browser_and_name(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let owner = world.hub.api().login_as_browser("owner").await;
    let mut browser = Browser::new(&world);
    let at_hub = browser.until_the_hub("/echo").await;
    let finish = location(&ask_hub(&owner, &at_hub).await);

    // In another browser, which never started: a link sent by somebody who wants to be signed in for.
    let mut other = Browser::new(&world);
    let refused = other.go(&finish).await;
    assert!(refused.status >= 400 || !other.holds("__Host-phlix-v"), "{}", refused.status);
    assert!(!other.holds("__Host-phlix-v"), "a stranger's link signed this browser in");

    // With another state.
    let mut url = Url::parse(&finish).unwrap();
    let code = url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    url.query_pairs_mut().clear().append_pair("code", &code).append_pair("state", "another");
    let mut confused = Browser { world: &world, cookies: browser.cookies.clone() };
    confused.go(url.as_str()).await;
    assert!(!confused.holds("__Host-phlix-v"));

    let started = browser.cookies.clone();
    browser.go(&finish).await.location();
    assert!(browser.holds("__Host-phlix-v"), "its own browser is let in");
    // Again, even with what that browser held.
    let mut again = Browser { world: &world, cookies: started };
    again.go(&finish).await;
    assert!(!again.holds("__Host-phlix-v"), "the code was good twice");
}

async fn the_way_back_leads_nowhere_else(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let owner = world.hub.api().login_as_browser("owner").await;
    for target in
        ["//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "evil", "/a\r\nx: y", ""]
    {
        let mut browser = Browser::new(&world);
        let start: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("return", target).finish();
        let begun = browser.go(&format!("/.phlix/start?{start}")).await;
        if begun.status >= 400 {
            continue;
        }
        let finish = location(&ask_hub(&owner, &begun.location()).await);
        let back = browser.go(&finish).await.location();
        let back = Url::parse(&world.server.url).unwrap().join(&back).unwrap();
        assert_eq!(back.origin().ascii_serialization(), world.server.url, "return={target}");
    }
    // The hub takes no address to return to, and knows only its own names.
    let mut browser = Browser::new(&world);
    let at_hub = browser.until_the_hub("/echo").await;
    for host in ["evil.example", "unknown.hub.localhost", "hub.localhost", "localhost", ""] {
        let mut url = Url::parse(&at_hub).unwrap();
        let pairs: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| name != "host").collect();
        url.query_pairs_mut().clear().extend_pairs(pairs).append_pair("host", host);
        let answer = ask_hub(&owner, url.as_str()).await;
        let to = answer.headers.get("location").map(|to| to.to_str().unwrap().to_owned()).unwrap_or_default();
        assert!(!to.contains("code="), "a code for {host:?}: {to}");
    }
}

async fn who_may_not_is_told_so(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    world.hub.api().register("stranger").await;
    let stranger = world.hub.api().login_as_browser("stranger").await;
    let mut browser = Browser::new(&world);
    let at_hub = browser.until_the_hub("/echo").await;
    let refused = ask_hub(&stranger, &at_hub).await;
    assert_eq!(refused.status, 403, "{:?}", refused.headers);
    assert!(home.seen().is_empty());
}
