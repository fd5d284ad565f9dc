//! What to run: where a program lies, its arguments and its environment.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Directories that are searched after `PATH`, which for ordinary users does not have them on Debian.
const SYSTEM_DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"];
/// Debian keeps each Postgres version's programs in a directory of its own below this one.
const POSTGRES_VERSIONS_DIR: &str = "/usr/lib/postgresql";

/// A program to start as a [`crate::Process`].
#[derive(Debug, Clone)]
pub struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, OsString)>,
    pub(crate) user: Option<String>,
}

impl Program {
    /// `name` is what messages and the log file call it; `path` is the executable.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), args: Vec::new(), env: Vec::new(), user: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds or replaces one environment variable. All others are inherited, except those that configure Starling, so that
    /// the shell of whoever runs the tests does not leak in.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs it as another user. Only root can.
    #[must_use]
    pub(crate) fn user(mut self, user: Option<String>) -> Self {
        self.user = user;
        self
    }
}

/// The built binary `name` of this workspace, from the directory in which the running executable (or, for a test, its
/// parent) lies, or from `STARLING_BIN_DIR`.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binary_dir()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: run `cargo build --workspace --bins` first (`make test` does), \
             or set STARLING_BIN_DIR to the directory that has it",
            path.display()
        );
    }
    Ok(path)
}

fn binary_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("STARLING_BIN_DIR") {
        return std::path::absolute(PathBuf::from(dir)).context("STARLING_BIN_DIR");
    }
    let executable = std::env::current_exe().context("cannot tell where this executable lies")?;
    let dir = executable.parent().context("this executable has no directory")?;
    let is_test = dir.file_name().is_some_and(|name| name == "deps" || name == "examples");
    Ok(if is_test { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}

/// The installed program `name`, from `PATH`, the system directories or the newest installed Postgres.
pub(crate) fn installed(name: &str, debian_package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .chain(postgres_dirs())
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!(
                "`{name}` is not installed: it is in the Debian package `{debian_package}` \
                 (`make deps`, and so `make test`, installs what is missing)"
            )
        })
}

/// Newest version first.
fn postgres_dirs() -> Vec<PathBuf> {
    let Ok(entries) = Path::new(POSTGRES_VERSIONS_DIR).read_dir() else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = installed("no-such-program", "no-such-package").unwrap_err().to_string();
        assert!(error.contains("no-such-package"), "{error}");
    }

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let error = binary("no-such-binary").unwrap_err().to_string();
        assert!(error.contains("cargo build --workspace --bins"), "{error}");
    }
}
