//! The numbered migrations of each SQL engine, in the order in which they are applied.

/// One step of a schema. Once released its text never changes: the store keeps a checksum of what it applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// 1, 2, 3, … without gaps.
    pub version: u32,
    /// A word for people.
    pub name: &'static str,
    /// The statements, separated by `;`.
    pub sql: &'static str,
}

/// SQLite's migrations.
pub const SQLITE: &[Migration] = &[
    Migration { version: 1, name: "direct", sql: include_str!("../sql/sqlite/0001_direct.sql") },
    Migration { version: 2, name: "groups", sql: include_str!("../sql/sqlite/0002_groups.sql") },
];

/// MySQL's and MariaDB's migrations. Each of their statements can be run again, for these servers commit a statement that makes a table by itself.
pub const MYSQL: &[Migration] = &[
    Migration { version: 1, name: "direct", sql: include_str!("../sql/mysql/0001_direct.sql") },
    Migration { version: 2, name: "groups", sql: include_str!("../sql/mysql/0002_groups.sql") },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_from_one_without_gaps() {
        for engine in [SQLITE, MYSQL] {
            for (at, migration) in engine.iter().enumerate() {
                assert_eq!(usize::try_from(migration.version).unwrap(), at + 1);
                assert!(!migration.name.is_empty() && !migration.sql.trim().is_empty());
            }
        }
    }

    #[test]
    fn both_engines_have_the_same_migrations() {
        let names =
            |engine: &[Migration]| engine.iter().map(|one| (one.version, one.name)).collect::<Vec<_>>();
        assert_eq!(names(SQLITE), names(MYSQL));
    }
}
