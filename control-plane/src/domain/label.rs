//! Labels that owners pick for their servers: which may be had at all, and which look alike (architecture s.8, promises T22).

use std::fmt;

use phlix_protocol::hostname::Hostname;

/// Shorter ones are worth squatting and are read as country codes, record types or the hub's own (`ns`, `mx`, `tv`, `id`).
const SHORTEST: usize = 3;
/// RFC 1035 s.2.3.4.
const LONGEST: usize = 63;
/// Digits of a label that the hub makes itself.
const GENERATED: usize = 8;

/// Labels that nobody may pick, with or without a number behind: `ns` stands for `ns1` too.
///
/// Names by which mail, DNS, certificates and operating systems find services without asking (RFC 2142, RFC 6186, RFC 6761,
/// RFC 8461, WPAD, ISATAP, autodiscover), and those that people would take for the hub itself.
const RESERVED: &[&str] = &[
    "about",
    "abuse",
    "account",
    "accounts",
    "acme",
    "acme-challenge",
    "admin",
    "administrator",
    "admins",
    "agent",
    "agents",
    "alt",
    "api",
    "apis",
    "app",
    "apps",
    "asset",
    "assets",
    "auth",
    "authorize",
    "autoconfig",
    "autodiscover",
    "billing",
    "bimi",
    "blog",
    "broadcasthost",
    "ca",
    "callback",
    "cdn",
    "cert",
    "certs",
    "claim",
    "claims",
    "client",
    "clients",
    "community",
    "console",
    "contact",
    "control",
    "control-plane",
    "crl",
    "dashboard",
    "dev",
    "dkim",
    "dmarc",
    "dns",
    "docs",
    "doh",
    "domainkey",
    "download",
    "downloads",
    "e2e",
    "edge",
    "edges",
    "email",
    "example",
    "exchange",
    "federation",
    "forum",
    "ftp",
    "gateway",
    "git",
    "grafana",
    "health",
    "help",
    "hostmaster",
    "hub",
    "hubs",
    "idp",
    "imap",
    "imaps",
    "info",
    "internal",
    "intranet",
    "invalid",
    "invite",
    "invites",
    "ip",
    "isatap",
    "kerberos",
    "ldap",
    "ldaps",
    "legal",
    "local",
    "localdomain",
    "localhost",
    "login",
    "logout",
    "loopback",
    "mail",
    "mailer-daemon",
    "metrics",
    "monitor",
    "mta",
    "mta-sts",
    "mx",
    "news",
    "nobody",
    "noc",
    "noreply",
    "ns",
    "ntp",
    "oauth",
    "ocsp",
    "oidc",
    "onion",
    "origin",
    "password",
    "passwords",
    "pay",
    "payment",
    "payments",
    "peer",
    "peers",
    "phlix",
    "pki",
    "pop",
    "portal",
    "postmaster",
    "preview",
    "private",
    "prod",
    "production",
    "prometheus",
    "proxy",
    "register",
    "relay",
    "relays",
    "root",
    "router",
    "saml",
    "secure",
    "security",
    "server",
    "servers",
    "session",
    "sessions",
    "sftp",
    "signin",
    "signout",
    "signup",
    "sip",
    "sips",
    "smtp",
    "smtps",
    "spf",
    "ssh",
    "ssl",
    "ssladmin",
    "sso",
    "staging",
    "static",
    "status",
    "stun",
    "support",
    "sysadmin",
    "team",
    "terms",
    "test",
    "ticket",
    "tickets",
    "tls",
    "token",
    "tokens",
    "tunnel",
    "tunnels",
    "turn",
    "update",
    "updates",
    "user",
    "users",
    "verify",
    "vpn",
    "web",
    "webhook",
    "webhooks",
    "webmail",
    "webmaster",
    "well-known",
    "wiki",
    "wpad",
    "www",
    "xmpp",
];

/// A label of the right form. Whether it may be had is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(String);

/// Why a text is no label that can be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Short,
    Long,
    Characters,
    OuterHyphen,
    /// Two in a row. At the third and fourth place they announce another script in disguise (RFC 5891 s.4.2.3.1); elsewhere
    /// nobody counts them.
    DoubleHyphen,
    /// The form of the hub's own labels.
    Generated,
}

impl Malformed {
    /// For people.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Short => "A name has at least 3 characters.",
            Self::Long => "A name has at most 63 characters.",
            Self::Characters => "Use only letters from a to z, digits and hyphens.",
            Self::OuterHyphen => "A name begins and ends with a letter or a digit.",
            Self::DoubleHyphen => "Put no two hyphens side by side.",
            Self::Generated => {
                "Eight characters that are all digits or letters from a to f are kept for names that the hub makes itself."
            }
        }
    }
}

/// Why a well-formed label can't be anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is a reserved word.
    Reserved,
    /// It looks like one.
    LooksReserved,
}

impl Label {
    /// Case does not matter in DNS: it is folded here.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let label = text.trim().to_ascii_lowercase();
        if !label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err(Malformed::Characters);
        }
        match label.len() {
            length if length < SHORTEST => return Err(Malformed::Short),
            length if length > LONGEST => return Err(Malformed::Long),
            _ => {}
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Malformed::OuterHyphen);
        }
        if label.contains("--") {
            return Err(Malformed::DoubleHyphen);
        }
        if is_generated(&label) {
            return Err(Malformed::Generated);
        }
        Ok(Self(label))
    }

    /// The name under the public domain; `None` where both together are too long.
    pub(crate) fn under(&self, domain: &str) -> Option<Hostname> {
        format!("{}.{domain}", self.0).parse().ok()
    }

    /// Is it kept from everybody? `own` are this hub's own labels: of its pages and of its edges.
    pub(crate) fn kept(&self, own: &[String]) -> Option<Kept> {
        let words = || RESERVED.iter().copied().chain(own.iter().map(String::as_str));
        let is_word = |text: &str| words().any(|word| word == text || word == stem(text));
        // `api-login-2`: made of nothing but reserved words and numbers.
        let is_made_of_words = !stem(&self.0).is_empty()
            && self.0.split('-').all(|part| stem(part).is_empty() || is_word(part))
            && self.0.split('-').any(is_word);
        if is_word(&self.0) || is_made_of_words {
            return Some(Kept::Reserved);
        }
        let (whole, bare) = (skeleton(&self.0), skeleton(stem(&self.0)));
        let looks_so = words().map(skeleton).any(|word| word == whole || word == bare);
        looks_so.then_some(Kept::LooksReserved)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Is it a label that the hub makes itself? Nobody can pick one like that, so the form tells them apart.
pub(crate) fn is_generated(label: &str) -> bool {
    label.len() == GENERATED && label.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Without the number at its end.
fn stem(label: &str) -> &str {
    label.trim_end_matches(|character: char| character.is_ascii_digit() || character == '-')
}

/// A label with everything folded that people can't tell apart at a glance: hyphens, `0`/`o`, `1`/`l`/`i`, `5`/`s`, `rn`/`m`,
/// `vv`/`w`. Two labels with one skeleton can't both be names.
pub(crate) fn skeleton(label: &str) -> String {
    let fold = |character| match character {
        '0' => 'o',
        '1' | 'i' => 'l',
        '5' => 's',
        other => other,
    };
    let folded: String = label.chars().filter(|character| *character != '-').map(fold).collect();
    folded.replace("rn", "m").replace("vv", "w")
}

/// What the unique key compares: the skeleton of the first label, under its domain.
pub(crate) fn skeleton_of(host: &Hostname) -> String {
    match host.as_str().split_once('.') {
        Some((label, domain)) => format!("{}.{domain}", skeleton(label)),
        None => skeleton(host.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap_or_else(|malformed| panic!("{text}: {malformed:?}"))
    }

    #[test]
    fn only_labels_that_dns_and_people_read_alike_are_taken() {
        let longest = "a".repeat(63);
        for good in ["ann", "ann-tv", "4k-films", "123", "a-b-c", "deadbee", "deadbeef0", "beach-hut", longest.as_str()]
        {
            assert_eq!(label(good).to_string(), good);
        }
        assert_eq!(label("  Ann-TV ").to_string(), "ann-tv");
        let too_long = "a".repeat(64);
        for (bad, why) in [
            ("", Malformed::Short),
            ("tv", Malformed::Short),
            (too_long.as_str(), Malformed::Long),
            ("ann tv", Malformed::Characters),
            ("ann.tv", Malformed::Characters),
            ("ann_tv", Malformed::Characters),
            ("_acme-challenge", Malformed::Characters),
            ("bücher", Malformed::Characters),
            ("аnn", Malformed::Characters),
            ("ann\0", Malformed::Characters),
            ("*nn", Malformed::Characters),
            ("-ann", Malformed::OuterHyphen),
            ("ann-", Malformed::OuterHyphen),
            ("xn--ann", Malformed::DoubleHyphen),
            ("ab--cd", Malformed::DoubleHyphen),
            ("10cacae0", Malformed::Generated),
            ("DEADBEEF", Malformed::Generated),
        ] {
            assert_eq!(Label::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn reserved_words_are_nobodys_in_any_dress() {
        let own = ["films".to_owned(), "front".to_owned()];
        for word in [
            "www",
            "www2",
            "api",
            "admin",
            "hub",
            "mail",
            "smtp",
            "imap",
            "ns1",
            "ns-12",
            "acme-challenge",
            "autodiscover",
            "wpad",
            "isatap",
            "localhost",
            "e2e",
            "app",
            "login",
            "auth",
            "account",
            "static",
            "cdn",
            "status",
            "tunnel",
            "phlix",
            "phlix-login",
            "api-login-2",
            "films",
            "front-1",
        ] {
            assert_eq!(label(word).kept(&own), Some(Kept::Reserved), "{word}");
        }
        for word in
            ["adrnin", "adm1n", "l0gin", "log-in", "vvww", "a-p-i", "ph1ix", "phiix", "5tatus", "f1lms", "phl1x-2"]
        {
            assert_eq!(label(word).kept(&own), Some(Kept::LooksReserved), "{word}");
        }
        for word in ["ann", "my-phlix", "media", "home", "films-of-ann", "123", "mailbox", "apiary", "nas1"] {
            assert_eq!(label(word).kept(&own), None, "{word}");
        }
    }

    #[test]
    fn no_reserved_word_is_out_of_reach() {
        for pair in RESERVED.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?} in their order, each once");
        }
        for word in RESERVED {
            assert_eq!(stem(word), *word, "{word}: a number at the end is never compared");
            assert!(!word.contains("--"));
        }
    }

    #[test]
    fn what_looks_alike_has_one_skeleton() {
        for (one, other) in [
            ("ann-tv", "anntv"),
            ("o0o", "000"),
            ("ill", "111"),
            ("5even", "seven"),
            ("modern", "modem"),
            ("vvave", "wave"),
            ("r-n-b", "m-b"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one} and {other}");
        }
        for (one, other) in [("ann", "anna"), ("cloud", "doud"), ("tv2", "tvz"), ("ab", "ba")] {
            assert_ne!(skeleton(one), skeleton(other), "{one} and {other}");
        }
        let host: Hostname = "Ann-1.hub-1.example".parse().unwrap();
        assert_eq!(skeleton_of(&host), "annl.hub-1.example");
    }

    /// The spellings that look like `character`; none but itself where the list is empty.
    fn lookalikes(character: char) -> &'static [&'static str] {
        match character {
            'o' => &["o", "0"],
            'l' => &["l", "1", "i"],
            's' => &["s", "5"],
            'm' => &["m", "rn"],
            'w' => &["w", "vv"],
            _ => &[],
        }
    }

    proptest! {
        #[test]
        fn a_skeleton_is_its_own_and_never_longer(label in "[a-z0-9-]{0,63}") {
            let once = skeleton(&label);
            prop_assert_eq!(&skeleton(&once), &once);
            prop_assert!(once.len() <= label.len());
            prop_assert!(!once.contains(['-', '0', '1', '5', 'i']) && !once.contains("rn") && !once.contains("vv"));
        }

        #[test]
        fn any_respelling_that_looks_alike_has_the_same_skeleton(
            plain in "[abolsmw2]{1,20}",
            choices in proptest::collection::vec((0_usize..6, any::<bool>()), 20),
        ) {
            let mut respelt = String::new();
            for (character, (choice, hyphen)) in plain.chars().zip(choices) {
                let spellings = lookalikes(character);
                match spellings.get(choice % spellings.len().max(1)) {
                    Some(spelling) => respelt.push_str(spelling),
                    None => respelt.push(character),
                }
                if hyphen {
                    respelt.push('-');
                }
            }
            prop_assert_eq!(skeleton(&respelt), skeleton(&plain));
        }

        /// The hub's own labels never get in each other's way.
        #[test]
        fn generated_labels_have_skeletons_of_their_own(one in "[0-9a-f]{8}", other in "[0-9a-f]{8}") {
            prop_assert_eq!(skeleton(&one) == skeleton(&other), one == other);
        }

        #[test]
        fn no_text_panics_and_what_parses_is_a_hostname(text in ".{0,80}") {
            if let Ok(label) = Label::parse(&text) {
                prop_assert!(label.under("hub.localhost").is_some());
                let _ = label.kept(&[]);
            }
        }
    }
}
