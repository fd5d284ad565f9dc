//! Tokens against real keys: every algorithm, every check, and every trick with a header that is known.
//! The keys in `keys/` were made for these tests and sign nothing else.
#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_jwks;

use std::{collections::BTreeMap, time::Duration};

use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse},
};
use serde_json::{Value, json};
use shared::{
    auth::{
        Claims, JTI_BYTES_MAX, JwksLimits, Key, KeyError, ROLES_MAX, TokenError, TokenMint, TokenRules,
        TokenVerifier,
    },
    clock::now_ms,
    domain::{ConversationId, RoleName, UserId},
};
use support_jwks::{Answer, Server};

/// As long as HS512 needs.
const SECRET: &str = "for tests only: 0123456789abcdef0123456789abcdef0123456789abcdef";

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("keys/", $name, ".pem"))
    };
}

/// Every algorithm, with the key that signs and the one that checks.
const ALGORITHMS: [(&str, &str, &str); 12] = [
    ("HS256", SECRET, SECRET),
    ("HS384", SECRET, SECRET),
    ("HS512", SECRET, SECRET),
    ("RS256", pem!("rsa"), pem!("rsa.pub")),
    ("RS384", pem!("rsa"), pem!("rsa.pub")),
    ("RS512", pem!("rsa"), pem!("rsa.pub")),
    ("PS256", pem!("rsa"), pem!("rsa.pub")),
    ("PS384", pem!("rsa"), pem!("rsa.pub")),
    ("PS512", pem!("rsa"), pem!("rsa.pub")),
    ("ES256", pem!("p256"), pem!("p256.pub")),
    ("ES384", pem!("p384"), pem!("p384.pub")),
    ("EdDSA", pem!("ed25519"), pem!("ed25519.pub")),
];

fn signing_key(algorithm: Algorithm, private: &str) -> EncodingKey {
    match format!("{algorithm:?}").as_bytes() {
        [b'H', ..] => EncodingKey::from_secret(private.as_bytes()),
        [b'R' | b'P', ..] => EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
        [_, b'S', ..] => EncodingKey::from_ec_pem(private.as_bytes()).unwrap(),
        _ => EncodingKey::from_ed_pem(private.as_bytes()).unwrap(),
    }
}

fn header(algorithm: &str, kid: Option<&str>) -> Header {
    Header { kid: kid.map(str::to_owned), ..Header::new(algorithm.parse().unwrap()) }
}

fn sign(header: &Header, private: &str, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &signing_key(header.alg, private)).unwrap()
}

fn soon() -> u64 {
    now_ms() / 1_000 + 600
}

fn alice() -> Value {
    json!({ "sub": "alice", "exp": soon() })
}

fn with(extra: &Value) -> Value {
    let mut claims = alice();
    claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    claims
}

fn key(algorithm: &str, kid: Option<&str>, material: &str) -> Key {
    Key::new(algorithm, kid.map(str::to_owned), material).unwrap()
}

fn verifier(keys: Vec<Key>) -> TokenVerifier {
    TokenVerifier::new(TokenRules::default()).with_keys(None, keys)
}

async fn is_alice(verifier: &TokenVerifier, token: &str) -> bool {
    match verifier.verify(token).await {
        Ok(claims) => {
            assert_eq!(claims.identity.user.as_str(), "alice");
            true
        }
        Err(error) => {
            assert_eq!(error, TokenError::Invalid);
            false
        }
    }
}

#[tokio::test]
async fn every_algorithm_goes_with_its_own_key_and_with_no_other() {
    for (signs, private, _) in ALGORITHMS {
        let token = sign(&header(signs, None), private, &alice());
        for (checks, _, public) in ALGORITHMS {
            let verifier = verifier(vec![key(checks, None, public)]);
            assert_eq!(is_alice(&verifier, &token).await, signs == checks, "{signs} by a key for {checks}");
        }
    }
    let foreign = sign(&header("RS256", None), pem!("other_rsa"), &alice());
    assert!(!is_alice(&verifier(vec![key("RS256", None, pem!("rsa.pub"))]), &foreign).await);
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let verifier = verifier(vec![key("RS256", Some("k"), pem!("rsa.pub"))]);
    let public = pem!("rsa.pub");
    let lines: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    for secret in [public, public.trim_end(), &lines] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            for kid in [None, Some("k")] {
                assert!(!is_alice(&verifier, &sign(&header(algorithm, kid), secret, &alice())).await);
            }
        }
    }
}

#[tokio::test]
async fn a_token_without_a_signature_is_none() {
    use base64_url::encode;
    let all = ALGORITHMS.map(|(algorithm, _, public)| key(algorithm, None, public));
    let verifier = verifier(all.into());
    let payload = encode(&alice().to_string());
    for algorithm in ["none", "None", "NONE", "", "HS256"] {
        let head = encode(&json!({ "alg": algorithm, "typ": "JWT" }).to_string());
        for token in
            [format!("{head}.{payload}."), format!("{head}.{payload}"), format!("{head}.{payload}.AA")]
        {
            assert!(!is_alice(&verifier, &token).await, "{token}");
        }
    }
    let headless = format!("{}.{payload}.", encode("{}"));
    for token in ["", ".", "..", "...", "a.b.c", headless.as_str(), &"a".repeat(9_000)] {
        assert!(!is_alice(&verifier, token).await, "{token}");
    }
}

/// Just enough to forge tokens.
mod base64_url {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub fn encode(text: &str) -> String {
        let mut out = String::new();
        for three in text.as_bytes().chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - three.len()));
            for place in 0..=three.len() {
                let letter = (bits >> (18 - 6 * place)) & 63;
                out.push(char::from(LETTERS[letter as usize]));
            }
        }
        out
    }
}

#[tokio::test]
async fn keys_in_a_header_are_ignored() {
    let issuer = Server::start(Answer::keys(vec![])).await;
    let verifier = verifier(vec![key("RS256", None, pem!("rsa.pub"))]);
    let forged = signing_key(Algorithm::RS256, pem!("other_rsa"));
    let tricks = [
        Header {
            jwk: Some(Jwk::from_encoding_key(&forged, Algorithm::RS256).unwrap()),
            ..header("RS256", None)
        },
        Header { jku: Some(issuer.url()), ..header("RS256", None) },
        Header { x5u: Some(issuer.url()), ..header("RS256", None) },
    ];
    for trick in tricks {
        assert!(!is_alice(&verifier, &sign(&trick, pem!("other_rsa"), &alice())).await, "{trick:?}");
        assert!(is_alice(&verifier, &sign(&trick, pem!("rsa"), &alice())).await, "{trick:?}");
    }
    assert_eq!(issuer.requests(), 0);
    let critical = Header { crit: Some(vec!["exp".to_owned()]), ..header("RS256", None) };
    assert!(!is_alice(&verifier, &sign(&critical, pem!("rsa"), &alice())).await);
}

#[tokio::test]
async fn claims_are_what_they_must_be() {
    let verifier = verifier(vec![key("HS256", None, SECRET)]);
    let verify = async |claims: &Value| verifier.verify(&sign(&header("HS256", None), SECRET, claims)).await;
    let far = soon() + TokenRules::default().lifetime_seconds_max;
    for bad in [
        json!({ "exp": soon() }),
        json!({ "sub": "alice" }),
        with(&json!({ "exp": soon().to_string() })),
        with(&json!({ "exp": null })),
        with(&json!({ "exp": -1 })),
        with(&json!({ "exp": far })),
        with(&json!({ "exp": 1e300 })),
        with(&json!({ "nbf": soon() })),
        with(&json!({ "nbf": "0" })),
        with(&json!({ "iat": "0" })),
        with(&json!({ "iat": -1 })),
        with(&json!({ "sub": 7 })),
        with(&json!({ "sub": "" })),
        with(&json!({ "sub": "a b" })),
        with(&json!({ "jti": "" })),
        with(&json!({ "jti": 7 })),
        with(&json!({ "jti": "x".repeat(JTI_BYTES_MAX + 1) })),
        with(&json!({ "conversations": "general" })),
        with(&json!({ "conversations": ["a*b"] })),
        with(&json!({ "conversations": [7] })),
        json!([]),
        json!("alice"),
    ] {
        let error = verify(&bad).await.unwrap_err();
        let is_past = bad.get("exp") == Some(&json!(-1));
        assert!(error == TokenError::Invalid || is_past, "{bad}: {error}");
    }
    assert_eq!(verify(&with(&json!({ "exp": 1 }))).await, Err(TokenError::Expired));
    let (exp, iat) = (soon(), soon() - 1_000);
    let full = json!({
        "sub": "alice", "exp": exp, "iat": iat, "nbf": iat, "jti": "t-1", "conversations": ["a.*", "b"],
        "info": { "n": 1 }, "iss": "anyone", "aud": "anything", "extra": [1],
    });
    let claims = verify(&full).await.unwrap();
    assert_eq!((claims.expires, claims.issued, claims.jti.as_deref()), (exp, iat, Some("t-1")));
    assert_eq!(claims.info.unwrap().as_bytes(), b"{\"n\":1}");
    let allows = |id: &str| claims.identity.grants.allow(&ConversationId::parse(id).unwrap());
    assert!(allows("a.1") && allows("b") && !allows("c"));
    let user = UserId::parse("alice").unwrap();
    assert_eq!(verify(&json!({ "sub": "alice", "exp": exp })).await, Ok(Claims::of(user.clone(), exp)));
    let seconds = Duration::from_secs(exp).as_secs_f64() + 0.5;
    assert_eq!(verify(&with(&json!({ "exp": seconds }))).await.unwrap().expires, exp);
    let minted = TokenMint::hmac(SECRET.as_bytes()).mint(&user, 60);
    assert_eq!(verifier.verify(&minted).await.unwrap().identity.user, user);
}

#[tokio::test]
async fn roles_are_read_where_they_are_some() {
    let verifier = verifier(vec![key("HS256", None, SECRET)]);
    let many: Vec<String> = (0..40).map(|n| format!("role-{n}")).collect();
    for (claims, roles) in [
        (json!({}), vec![]),
        (json!({ "roles": ["support", "billing", "support"] }), vec!["billing", "support"]),
        (json!({ "role": "support" }), vec!["support"]),
        (json!({ "roles": ["billing"], "role": "support" }), vec!["billing", "support"]),
        (json!({ "roles": { "app": ["x"] }, "role": 7 }), vec![]),
        (json!({ "roles": ["a b", null, "{x}", "", "ok"], "role": ["x"] }), vec!["ok"]),
        (json!({ "roles": "support" }), vec![]),
    ] {
        let token = sign(&header("HS256", None), SECRET, &with(&claims));
        let read = verifier.verify(&token).await.unwrap().identity.roles;
        assert_eq!(read.iter().map(RoleName::as_str).collect::<Vec<_>>(), roles, "{claims}");
    }
    let token = sign(&header("HS256", None), SECRET, &with(&json!({ "roles": many })));
    assert_eq!(verifier.verify(&token).await.unwrap().identity.roles.len(), ROLES_MAX);
}

#[tokio::test]
async fn issuer_and_audience_are_asked_for_where_configured() {
    let rules = TokenRules { audiences: vec!["chat".to_owned(), "web".to_owned()], ..TokenRules::default() };
    let verifier =
        TokenVerifier::new(rules).with_keys(Some("https://id".to_owned()), vec![key("HS256", None, SECRET)]);
    for (extra, is_good) in [
        (json!({ "iss": "https://id", "aud": "chat" }), true),
        (json!({ "iss": "https://id", "aud": ["mail", "web"] }), true),
        (json!({ "iss": "https://id", "aud": "mail" }), false),
        (json!({ "iss": "https://id", "aud": [] }), false),
        (json!({ "iss": "https://id" }), false),
        (json!({ "iss": "https://id.evil", "aud": "chat" }), false),
        (json!({ "iss": ["https://id", "https://evil"], "aud": "chat" }), false),
        (json!({ "aud": "chat" }), false),
    ] {
        let token = sign(&header("HS256", None), SECRET, &with(&extra));
        assert_eq!(is_alice(&verifier, &token).await, is_good, "{extra}");
    }
}

#[tokio::test]
async fn several_keys_are_told_apart_by_their_names() {
    let old = key("RS256", Some("old"), pem!("rsa.pub"));
    let new = key("ES256", Some("new"), pem!("p256.pub"));
    let verifier = verifier(vec![old, new]);
    for (algorithm, kid, private, is_good) in [
        ("RS256", Some("old"), pem!("rsa"), true),
        ("ES256", Some("new"), pem!("p256"), true),
        ("RS256", None, pem!("rsa"), true),
        ("ES256", None, pem!("p256"), true),
        ("RS256", Some("new"), pem!("rsa"), false),
        ("ES256", Some("old"), pem!("p256"), false),
        ("RS256", Some("gone"), pem!("rsa"), false),
        ("RS256", Some("old"), pem!("other_rsa"), false),
    ] {
        let token = sign(&header(algorithm, kid), private, &alice());
        assert_eq!(is_alice(&verifier, &token).await, is_good, "{algorithm} {kid:?}");
    }
}

#[tokio::test]
async fn the_key_of_one_issuer_does_not_speak_for_another() {
    let rules = TokenRules::default;
    let verifier = TokenVerifier::new(rules())
        .with_keys(Some("one".to_owned()), vec![key("RS256", Some("k"), pem!("rsa.pub"))])
        .with_keys(Some("two".to_owned()), vec![key("RS256", Some("k"), pem!("other_rsa.pub"))])
        .with_keys(None, vec![key("HS256", None, SECRET)]);
    for (iss, algorithm, private, is_good) in [
        (json!("one"), "RS256", pem!("rsa"), true),
        (json!("two"), "RS256", pem!("other_rsa"), true),
        (json!("one"), "RS256", pem!("other_rsa"), false),
        (json!("two"), "RS256", pem!("rsa"), false),
        (json!("three"), "RS256", pem!("rsa"), false),
        (json!("three"), "HS256", SECRET, true),
        (json!("one"), "HS256", SECRET, false),
    ] {
        for kid in [None, Some("k")] {
            let token = sign(&header(algorithm, kid), private, &with(&json!({ "iss": iss })));
            assert_eq!(is_alice(&verifier, &token).await, is_good, "{iss} {algorithm} {kid:?}");
        }
    }
}

#[test]
fn keys_that_are_not_safe_are_refused_by_name() {
    let refusal = |algorithm: &str, material: &str| Key::new(algorithm, None, material).err().unwrap();
    assert_eq!(refusal("none", SECRET), KeyError::Algorithm("none".to_owned()));
    assert_eq!(refusal("HS256", pem!("rsa.pub")), KeyError::PemAsSecret);
    assert_eq!(refusal("RS256", pem!("rsa")), KeyError::Private);
    assert_eq!(refusal("RS256", pem!("p256.pub")), KeyError::Unreadable("RS256".to_owned()));
    assert_eq!(refusal("ES256", pem!("rsa.pub")), KeyError::Unreadable("ES256".to_owned()));
    assert_eq!(refusal("EdDSA", "hello"), KeyError::Unreadable("EdDSA".to_owned()));
    for (algorithm, min) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        assert!(matches!(refusal(algorithm, &SECRET[..min - 1]), KeyError::TooShort { .. }));
        assert!(Key::new(algorithm, None, &SECRET[..min]).is_ok());
    }
    assert!(Key::new("RS256", None, &pem!("rsa.pub").replace('\n', "\\n")).is_ok());
}

const ISSUER: &str = "https://id.example";

fn published(algorithm: &str, kid: &str, private: &str) -> Value {
    let algorithm: Algorithm = algorithm.parse().unwrap();
    let mut jwk = Jwk::from_encoding_key(&signing_key(algorithm, private), algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    serde_json::to_value(jwk).unwrap()
}

fn from_issuer(algorithm: &str, kid: &str, private: &str) -> String {
    sign(&header(algorithm, Some(kid)), private, &with(&json!({ "iss": ISSUER })))
}

fn reading(server: &Server, limits: JwksLimits) -> TokenVerifier {
    TokenVerifier::new(TokenRules::default()).with_jwks(ISSUER.to_owned(), &server.url(), limits).unwrap()
}

/// So long that no test lasts until then.
const NEVER: Duration = Duration::from_hours(1);

fn patient() -> JwksLimits {
    JwksLimits { unknown_key_pause: NEVER, refresh_interval: NEVER, request_timeout: Duration::from_mins(1) }
}

fn eager() -> JwksLimits {
    JwksLimits { unknown_key_pause: Duration::ZERO, ..patient() }
}

#[tokio::test]
async fn published_keys_of_every_kind_are_used() {
    let keys: Vec<Value> =
        ALGORITHMS[3..].iter().map(|(name, private, _)| published(name, name, private)).collect();
    let server = Server::start(Answer::keys(keys)).await;
    let verifier = reading(&server, patient());
    for (name, private, _) in &ALGORITHMS[3..] {
        assert!(is_alice(&verifier, &from_issuer(name, name, private)).await, "{name}");
    }
    assert_eq!(server.requests(), 1);
    // The name of a key does not let it be used in another way.
    assert!(!is_alice(&verifier, &from_issuer("PS256", "RS256", pem!("rsa"))).await);
    assert!(
        !is_alice(&verifier, &sign(&header("RS256", Some("RS256")), pem!("rsa"), &alice())).await,
        "no iss"
    );
}

#[tokio::test]
async fn what_is_published_and_no_signing_key_is_left_out() {
    let mut for_secrets = published("RS256", "enc", pem!("rsa"));
    for_secrets["use"] = json!("enc");
    let mut nameless = published("RS256", "plain", pem!("rsa"));
    nameless.as_object_mut().unwrap().remove("alg");
    let mut crossed = published("ES256", "crossed", pem!("p256"));
    crossed["alg"] = json!("ES384");
    let secret = json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": base64_url::encode(SECRET) });
    let unknown = json!({ "kty": "AKP", "kid": "new", "alg": "ML-DSA-44", "pub": "AA" });
    let server =
        Server::start(Answer::keys(vec![for_secrets, nameless, crossed, secret, unknown, json!(7)])).await;
    let verifier = reading(&server, eager());
    for (algorithm, kid, private, is_good) in [
        ("RS256", "plain", pem!("rsa"), true),
        ("RS512", "plain", pem!("rsa"), false),
        ("RS256", "enc", pem!("rsa"), false),
        ("ES256", "crossed", pem!("p256"), false),
        ("HS256", "oct", SECRET, false),
    ] {
        assert_eq!(
            is_alice(&verifier, &from_issuer(algorithm, kid, private)).await,
            is_good,
            "{algorithm} {kid}"
        );
    }
}

#[tokio::test]
async fn rotated_keys_are_found_and_dropped_ones_are_not_used_any_more() {
    let server = Server::start(Answer::keys(vec![published("RS256", "a", pem!("rsa"))])).await;
    let verifier = reading(&server, eager());
    let (a, b) = (from_issuer("RS256", "a", pem!("rsa")), from_issuer("EdDSA", "b", pem!("ed25519")));
    assert!(is_alice(&verifier, &a).await);
    assert!(!is_alice(&verifier, &b).await);
    server.answer(Answer::keys(vec![
        published("RS256", "a", pem!("rsa")),
        published("EdDSA", "b", pem!("ed25519")),
    ]));
    assert!(is_alice(&verifier, &b).await && is_alice(&verifier, &a).await);
    server.answer(Answer::keys(vec![published("EdDSA", "b", pem!("ed25519"))]));
    // Whatever makes the keys be read again.
    assert!(!is_alice(&verifier, &from_issuer("RS256", "c", pem!("rsa"))).await);
    assert!(!is_alice(&verifier, &a).await && is_alice(&verifier, &b).await);
}

#[tokio::test]
async fn unknown_keys_bring_about_one_request_in_a_while() {
    let server = Server::start(Answer::keys(vec![published("RS256", "a", pem!("rsa"))])).await;
    let verifier = reading(&server, patient());
    let unknown: Vec<String> = (0..20).map(|n| from_issuer("RS256", &format!("x{n}"), pem!("rsa"))).collect();
    let answers = futures_util::future::join_all(unknown.iter().map(|token| verifier.verify(token))).await;
    assert_eq!(server.requests(), 1);
    // Who was there before the request is told for certain; who came later may have a key that is newer.
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.unwrap_err()).or_insert(0) += 1;
    }
    assert!(counts[&TokenError::Invalid] >= 1, "{counts:?}");
    assert_eq!(verifier.verify(&unknown[0]).await, Err(TokenError::Unavailable));
    assert!(is_alice(&verifier, &from_issuer("RS256", "a", pem!("rsa"))).await);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn known_keys_are_used_while_the_issuer_is_away() {
    let set = || Answer::keys(vec![published("RS256", "a", pem!("rsa"))]);
    let server = Server::start(Answer::Status(503)).await;
    let verifier = reading(&server, JwksLimits { request_timeout: Duration::from_secs(5), ..eager() });
    let (a, b) = (from_issuer("RS256", "a", pem!("rsa")), from_issuer("RS256", "b", pem!("rsa")));
    assert_eq!(verifier.verify(&a).await, Err(TokenError::Unavailable), "nobody can tell yet");
    server.answer(set());
    assert!(is_alice(&verifier, &a).await);
    for trouble in [
        Answer::Status(503),
        Answer::Redirect,
        Answer::Body("no JSON".to_owned()),
        Answer::keys(vec![]),
        Answer::Body(format!("{{\"keys\":[],\"padding\":\"{}\"}}", " ".repeat(300 * 1024))),
        Answer::Endless,
        Answer::Silence,
    ] {
        let what = format!("{trouble:?}").chars().take(40).collect::<String>();
        server.answer(trouble);
        let before = server.requests();
        assert_eq!(verifier.verify(&b).await, Err(TokenError::Unavailable), "{what}");
        assert_eq!(server.requests(), before + 1, "{what}");
        assert!(is_alice(&verifier, &a).await, "{what}");
    }
    assert_eq!(server.redirected(), 0);
    server.answer(set());
    assert!(!is_alice(&verifier, &b).await, "now it is certain");
}

#[tokio::test]
async fn keys_are_kept_fresh_without_being_asked_for() {
    let server = Server::start(Answer::Status(500)).await;
    let verifier = reading(&server, JwksLimits { refresh_interval: Duration::from_millis(10), ..patient() });
    let a = from_issuer("RS256", "a", pem!("rsa"));
    let works = async {
        assert_eq!(verifier.verify(&a).await, Err(TokenError::Unavailable));
        server.answer(Answer::keys(vec![published("RS256", "a", pem!("rsa"))]));
        while verifier.verify(&a).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.answer(Answer::keys(vec![published("RS256", "b", pem!("rsa"))]));
        while verifier.verify(&a).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = verifier.keep_fresh() => panic!("it goes on for ever"),
        done = tokio::time::timeout(Duration::from_mins(2), works) => done.unwrap(),
    }
}

#[test]
fn keys_are_read_over_http_alone() {
    for url in ["file:///etc/passwd", "ftp://id/keys", "no url", ""] {
        let verifier = TokenVerifier::new(TokenRules::default());
        assert!(verifier.with_jwks(ISSUER.to_owned(), url, patient()).is_err(), "{url}");
    }
}
