//! One key and the one algorithm that it goes with.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};

use super::verifier::TokenRules;

/// Shortest HMAC secret, in bytes: as long as the shortest hash (RFC 7518 §3.2); HS384 and HS512 need 48 and 64.
pub const HMAC_SECRET_BYTES_MIN: usize = 32;
/// What a key in a text file begins with.
const PEM_START: &str = "-----BEGIN";
/// How far the clocks of two machines may differ, in seconds.
const LEEWAY_SECONDS: u64 = 10;

/// Why a configured key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no such algorithm, or it is not offered.
    #[error(
        "`{0}` is not HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
    )]
    Algorithm(String),
    /// An HMAC secret that could be guessed.
    #[error("the secret has {bytes} bytes; {algorithm} needs at least {min}")]
    TooShort {
        /// Bytes that it has.
        bytes: usize,
        /// What it is for.
        algorithm: String,
        /// Bytes that it needs.
        min: usize,
    },
    /// Public keys are no secrets: whoever has this one could sign.
    #[error("a PEM key is no HMAC secret")]
    PemAsSecret,
    /// The secret half has no business here.
    #[error("this is a private key; give the public one")]
    Private,
    /// It is not a key of that kind.
    #[error("not a public key for {0} in PEM")]
    Unreadable(String),
}

/// A key, the algorithm that it goes with, and what is asked of tokens that it has signed.
pub struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    validation: Validation,
}

impl Key {
    /// A key for the algorithm of this name: a public key in PEM, or the bytes of a secret for `HS…`. `kid` is what tokens
    /// call it; without one it is tried for every token whose own `kid` names no other key.
    ///
    /// # Errors
    /// When the key is not of that algorithm's kind, or not safe with it.
    pub fn new(algorithm: &str, kid: Option<String>, material: &str) -> Result<Self, KeyError> {
        let name = algorithm.to_owned();
        let algorithm: Algorithm =
            algorithm.parse().map_err(|_| KeyError::Algorithm(algorithm.to_owned()))?;
        if algorithm.family() == AlgorithmFamily::Hmac {
            let min = match algorithm {
                Algorithm::HS512 => 64,
                Algorithm::HS384 => 48,
                _ => HMAC_SECRET_BYTES_MIN,
            };
            let bytes = material.len();
            if material.contains(PEM_START) {
                return Err(KeyError::PemAsSecret);
            }
            if bytes < min {
                return Err(KeyError::TooShort { bytes, algorithm: name, min });
            }
            return Ok(Self::with(kid, algorithm, DecodingKey::from_secret(material.as_bytes())));
        }
        if material.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        // An environment file has its line breaks escaped.
        let pem = material.replace("\\n", "\n");
        let read = match algorithm.family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            _ => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        Ok(Self::with(kid, algorithm, read.map_err(|_| KeyError::Unreadable(name))?))
    }

    /// A key that an issuer publishes; `None` for one that is not for signatures, or of a kind that is not offered. A
    /// secret has no place in a published set, so `oct` keys are left out.
    pub(super) fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let named = match common.key_algorithm {
            Some(named) => Some(named.to_string().parse::<Algorithm>().ok()?),
            None => None,
        };
        // The kind of the key decides; a name may only choose among what fits it. RS256 is what an RSA key without a name
        // means (OpenID Connect's default).
        let algorithm = match (&jwk.algorithm, named) {
            (AlgorithmParameters::RSA(_), None) => Algorithm::RS256,
            (AlgorithmParameters::RSA(_), Some(named)) if named.family() == AlgorithmFamily::Rsa => named,
            (AlgorithmParameters::EllipticCurve(ec), named) => {
                let fits = match ec.curve {
                    EllipticCurve::P256 => Algorithm::ES256,
                    EllipticCurve::P384 => Algorithm::ES384,
                    _ => return None,
                };
                (named.unwrap_or(fits) == fits).then_some(fits)?
            }
            (AlgorithmParameters::OctetKeyPair(pair), None | Some(Algorithm::EdDSA))
                if pair.curve == EllipticCurve::Ed25519 =>
            {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        Some(Self::with(common.key_id.clone(), algorithm, DecodingKey::from_jwk(jwk).ok()?))
    }

    fn with(kid: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        Self { kid, algorithm, decoding, validation }
    }

    /// Asks of tokens what the deployment does, and the issuer whose key this is.
    pub(super) fn bound(mut self, issuer: Option<&str>, rules: &TokenRules) -> Self {
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            required.push("iss");
            self.validation.set_issuer(&[issuer]);
        }
        self.validation.validate_aud = !rules.audiences.is_empty();
        if self.validation.validate_aud {
            required.push("aud");
            self.validation.set_audience(&rules.audiences);
        }
        self.validation.set_required_spec_claims(&required);
        self
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn decode<T: serde::de::DeserializeOwned>(
        &self,
        token: &str,
    ) -> jsonwebtoken::errors::Result<T> {
        jsonwebtoken::decode(token, &self.decoding, &self.validation).map(|decoded| decoded.claims)
    }
}
