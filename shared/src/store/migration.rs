//! Which migrations a database still needs; how they are run is each store's own matter.

use sha2::{Digest, Sha256};

use super::StoreError;

/// One step of a schema. Once released it never changes.
pub(super) struct Migration {
    /// Counted from 1, without a hole.
    pub version: i64,
    /// What is run.
    pub sql: &'static str,
}

impl Migration {
    /// Recognises the text that was run.
    pub fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql);
        let (high, low) = digest.split_at(16);
        let number = |half: &[u8]| u128::from_be_bytes(half.try_into().expect("half of 32 bytes"));
        format!("{:032x}{:032x}", number(high), number(low))
    }
}

/// The migrations that are not applied yet.
///
/// # Errors
/// [`StoreError::Rejected`] when the database was migrated by a newer program or by other texts than these.
pub(super) fn pending<'a>(
    known: &'a [Migration],
    applied: &[(i64, String)],
) -> Result<Vec<&'a Migration>, StoreError> {
    for (version, checksum) in applied {
        let Some(migration) = known.iter().find(|migration| migration.version == *version) else {
            return Err(StoreError::Rejected(format!(
                "the database has migration {version}, which this program does not know: use a newer program"
            )));
        };
        if migration.checksum() != *checksum {
            return Err(StoreError::Rejected(format!(
                "migration {version} of the database is not the one that this program has"
            )));
        }
    }
    let is_applied = |version| applied.iter().any(|(done, _)| *done == version);
    Ok(known.iter().filter(|migration| !is_applied(migration.version)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Migration; 2] =
        [Migration { version: 1, sql: "SELECT 1" }, Migration { version: 2, sql: "SELECT 2" }];

    fn versions(applied: &[(i64, String)]) -> Result<Vec<i64>, String> {
        pending(&KNOWN, applied)
            .map(|list| list.iter().map(|migration| migration.version).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_missing_is_run() {
        let [first, second] = KNOWN.map(|migration| (migration.version, migration.checksum()));
        assert_eq!(versions(&[]), Ok(vec![1, 2]));
        assert_eq!(versions(std::slice::from_ref(&first)), Ok(vec![2]));
        assert_eq!(versions(&[first, second]), Ok(vec![]));
    }

    #[test]
    fn a_changed_text_and_a_newer_schema_are_refused() {
        assert!(versions(&[(1, KNOWN[1].checksum())]).unwrap_err().contains("migration 1"));
        assert!(versions(&[(3, KNOWN[0].checksum())]).unwrap_err().contains("newer program"));
    }
}
