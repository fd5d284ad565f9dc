//! What the configurations of all processes share: how a file is read, and how flags go over it.
//!
//! May use: nothing of this project. Deliberately absent: any setting of one process alone.

use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;

/// The settings in a TOML file; nothing is set where there is no file.
///
/// # Errors
/// When the file cannot be read, or is not what it should be; with the place in it.
pub fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> anyhow::Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
}

/// `over!(Settings, flags, file; a, b)`: each of the named fields from `flags` where it is given there, else from `file`.
#[macro_export]
macro_rules! over {
    ($settings:ident, $flags:ident, $file:ident; $($field:ident),* $(,)? $(; $($rest:tt)*)?) => {
        $settings { $($field: $flags.$field.or($file.$field),)* $($($rest)*)? }
    };
}

// A macro is exported at the top of a crate, wherever it stands.
pub use crate::over;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        a: Option<u8>,
        b: Option<u8>,
        c: Option<u8>,
    }

    #[test]
    fn flags_go_over_the_file() {
        let (flags, file) =
            (Settings { a: Some(1), b: None, c: None }, Settings { a: Some(2), b: Some(3), c: Some(4) });
        let settings = over!(Settings, flags, file; a, b; c: flags.c);
        assert_eq!(settings, Settings { a: Some(1), b: Some(3), c: None });
    }

    #[test]
    fn a_file_that_is_no_good_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("starling.toml");
        assert_eq!(read::<Settings>(None).unwrap(), Settings::default());
        assert!(format!("{:#}", read::<Settings>(Some(&path)).unwrap_err()).contains("starling.toml"));
        std::fs::write(&path, "a = 1\nd = 2").unwrap();
        let error = format!("{:#}", read::<Settings>(Some(&path)).unwrap_err());
        assert!(error.contains("starling.toml") && error.contains("`d`"), "{error}");
        std::fs::write(&path, "a = 1").unwrap();
        assert_eq!(read::<Settings>(Some(&path)).unwrap().a, Some(1));
    }
}
