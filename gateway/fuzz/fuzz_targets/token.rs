//! Tokens as strangers make them: nothing panics, and nothing is accepted but what was signed, with the one algorithm of the key,
//! and says the user and the time that it is accepted for.
//!
//! The first byte of an input says what the rest is. A token's header and claims are separated by the first newline.
#![no_main]

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use shared::auth::{Claims, Key, TokenError, TokenRules, TokenVerifier};

const SECRET: &str = "a secret that no input of a fuzzer contains";
/// A header and claims that are accepted when they are signed.
const GOOD: (&[u8], &[u8]) = (br#"{"alg":"HS256"}"#, br#"{"sub":"alice","exp":9999999999}"#);

fuzz_target!(|data: &[u8]| {
    let Some((shape, rest)) = data.split_first() else { return };
    match shape % 4 {
        0 => refuse(&String::from_utf8_lossy(rest)),
        1 => {
            let mut parts = rest.splitn(3, |byte| *byte == b'\n');
            let mut part = || BASE64.encode(parts.next().unwrap_or_default());
            refuse(&format!("{}.{}.{}", part(), part(), part()));
        }
        2 => {
            let mut parts = rest.splitn(2, |byte| *byte == b'\n');
            let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if let Ok(accepted) = verify(&signed(header, claims)) {
                check_accepted(&accepted, header, claims);
            }
        }
        _ => tamper(rest),
    }
});

fn verify(token: &str) -> Result<Claims, TokenError> {
    // The good token lives for centuries.
    let rules = TokenRules { lifetime_seconds_max: u64::MAX, ..TokenRules::default() };
    let key = Key::new("HS256", None, SECRET).expect("the secret is long enough");
    let verifier = TokenVerifier::new(rules).with_keys(None, vec![key]);
    verifier.verify(token).now_or_never().expect("a key that is at hand is not waited for")
}

fn refuse(token: &str) {
    assert_eq!(verify(token), Err(TokenError::Invalid), "{token}");
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature =
        crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256)
            .expect("any bytes can be signed");
    format!("{message}.{signature}")
}

/// Reads what was signed with a parser of its own.
fn check_accepted(accepted: &Claims, header: &[u8], claims: &[u8]) {
    // A value that nobody reads is not looked into, so it need not be UTF-8; this parser would mind.
    if std::str::from_utf8(header).is_err() || std::str::from_utf8(claims).is_err() {
        return;
    }
    assert_eq!(said::<String>(header, "alg"), "HS256");
    assert_eq!(said::<String>(claims, "sub"), accepted.identity.user.as_str());
    // A time may have a fraction, which is left out.
    assert_eq!(said::<f64>(claims, "exp").floor(), accepted.expires as f64);
    assert!(accepted.expires > 1_700_000_000, "long over");
}

fn said<T: DeserializeOwned>(object: &[u8], name: &str) -> T {
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(object).expect("an object");
    serde_json::from_str(fields[name].get()).expect("of that type")
}

/// Changes a genuine token: each pair of bytes is a place and what comes there instead.
fn tamper(edits: &[u8]) {
    let genuine = signed(GOOD.0, GOOD.1);
    assert!(verify(&genuine).is_ok());
    let mut token = genuine.clone().into_bytes();
    for edit in edits.chunks_exact(2) {
        let place = usize::from(edit[0]) % token.len();
        match edit[1] {
            byte @ 0..128 => token[place] = byte,
            128..192 => token.truncate(place.max(1)),
            _ => token.insert(place, edit[1] & 0x7f),
        }
    }
    let token = String::from_utf8(token).expect("ASCII stays ASCII");
    if token != genuine {
        refuse(&token);
    }
}
