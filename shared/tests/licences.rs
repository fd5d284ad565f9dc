//! Every crate that is built in has a licence, and comes from a place, that `deny.toml` allows. The tool for that file takes minutes
//! to install, so a machine may lack it; this check runs wherever the tests do, without a network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde::Deserialize;

#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[test]
fn every_crate_has_an_allowed_licence_and_source() {
    let policy = policy();
    let packages = packages();
    // If the list were read wrongly, everything in it would pass.
    for name in ["shared", "tokio", "serde_json"] {
        assert!(packages.iter().any(|package| package.name == name), "{name} is not in the list of crates");
    }
    let mut faults = Vec::new();
    for Package { name, version, license, source } in &packages {
        let license = license.as_deref().unwrap_or("");
        match is_allowed(license, &policy.licenses.allow) {
            Ok(true) => {}
            Ok(false) => faults.push(format!("{name} {version}: `{license}` is not allowed")),
            Err(fault) => faults.push(format!("{name} {version}: `{license}` cannot be read: {fault}")),
        }
        let registry = source.as_deref().map(|source| source.strip_prefix("registry+").unwrap_or(source));
        if registry.is_some_and(|registry| !policy.sources.allow_registry.contains(registry)) {
            faults.push(format!("{name} {version} comes from {registry:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_allowed_licence_is_needed() {
    let allowed = policy().licenses.allow;
    let packages = packages();
    for licence in &allowed {
        let mut others = allowed.clone();
        others.remove(licence);
        let is_needed = packages
            .iter()
            .any(|package| is_allowed(package.license.as_deref().unwrap_or(""), &others) != Ok(true));
        assert!(is_needed, "no crate needs {licence}: take it out of deny.toml");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn policy() -> Policy {
    toml::from_str(&fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// The crates that are built on this platform, from the lock file.
fn packages() -> Vec<Package> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Metadata>(&output.stdout).unwrap().packages
}

/// Whether an SPDX expression can be met with the allowed licences alone. The slash is how crates wrote OR long ago.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let result = any(&mut words, allowed)?;
    match words.next() {
        None => Ok(result),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let mut result = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed)?;
    }
    Ok(result)
}

fn all(words: &mut Words, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let mut result = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed)?;
    }
    Ok(result)
}

/// A licence, by itself or with an exception, or an expression in brackets.
fn one(words: &mut Words, allowed: &BTreeSet<String>) -> Result<bool, String> {
    match words.next() {
        None | Some("AND" | "OR" | "WITH" | ")") => Err("a licence is missing".to_owned()),
        Some("(") => {
            let result = any(words, allowed)?;
            words.next_if_eq(&")").map(|_| result).ok_or_else(|| "a bracket is missing".to_owned())
        }
        Some(licence) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().ok_or("an exception is missing")?;
            Ok(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        Some(licence) => Ok(allowed.contains(licence)),
    }
}

#[test]
fn expressions_are_judged_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC OR GPL-3.0", true),
        ("GPL-3.0 OR MIT AND Zlib", false),
        ("(GPL-3.0 OR MIT) AND (ISC)", true),
        ("MIT WITH Some-exception", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), Ok(expected), "{expression}");
    }
    for expression in ["", "MIT ISC", "(MIT", "MIT OR", "MIT)", "MIT WITH"] {
        assert!(is_allowed(expression, &allowed).is_err(), "{expression}");
    }
}
