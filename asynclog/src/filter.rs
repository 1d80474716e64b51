//! Which records are wanted: a level for each target, read from `env_logger`'s syntax, changeable while running.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use log::{Level, LevelFilter};

use crate::LogError;

/// Levels by target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    default: LevelFilter,
    /// Longest target first, so that the first match is the closest.
    targets: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// Reads `info,chatd=debug,reactor::poll=off`: a bare level is for all other targets (else `default` is), a bare target has all levels.
    pub(crate) fn parse(text: &str, default: LevelFilter) -> Result<Self, LogError> {
        let mut filter = Self { default, targets: Vec::new() };
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let wrong = |reason| LogError::Filter { directive: directive.to_owned(), reason };
            if directive.contains('/') {
                return Err(wrong("filtering by text is not supported"));
            }
            let (target, level) = match directive.split_once('=') {
                None => match LevelFilter::from_str(directive) {
                    Ok(level) => {
                        filter.default = level;
                        continue;
                    }
                    Err(_) => (directive, LevelFilter::Trace),
                },
                Some((target, level)) => {
                    let level = LevelFilter::from_str(level.trim())
                        .map_err(|_| wrong("the level must be off, error, warn, info, debug or trace"))?;
                    (target.trim(), level)
                }
            };
            if target.is_empty() || target.contains(char::is_whitespace) {
                return Err(wrong("the target must be a module path"));
            }
            filter.targets.retain(|(known, _)| known != target);
            filter.targets.push((target.to_owned(), level));
        }
        filter.targets.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(filter)
    }

    /// The most that any target may log.
    pub(crate) fn max(&self) -> LevelFilter {
        self.targets.iter().map(|(_, level)| *level).fold(self.default, Ord::max)
    }

    fn allows(&self, level: Level, target: &str) -> bool {
        let closest = self.targets.iter().find(|(module, _)| is_within(target, module));
        level <= closest.map_or(self.default, |(_, level)| *level)
    }
}

/// `chatd` holds `chatd` and `chatd::session`, but not `chatdeluxe`.
fn is_within(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The filter in force. Most records are judged by one load; only filters that name targets take the lock, for reading, and it is
/// held for writing only while one filter replaces another.
#[derive(Debug)]
pub(crate) struct LiveFilter {
    filter: RwLock<Filter>,
    max: AtomicUsize,
}

/// Set in `LiveFilter::max` when targets differ.
const BY_TARGET: usize = 1 << 8;

impl LiveFilter {
    pub(crate) fn new(filter: Filter) -> Self {
        Self { max: AtomicUsize::new(summary(&filter)), filter: RwLock::new(filter) }
    }

    pub(crate) fn allows(&self, level: Level, target: &str) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        if level as usize > max & !BY_TARGET {
            return false;
        }
        max & BY_TARGET == 0
            || self.filter.read().unwrap_or_else(PoisonError::into_inner).allows(level, target)
    }

    /// The most that any target may log.
    pub(crate) fn max(&self) -> LevelFilter {
        self.filter.read().unwrap_or_else(PoisonError::into_inner).max()
    }

    /// Replaces it, and tells `max_changed` the most that any target may log before another can replace it. False when it is the same as before.
    pub(crate) fn set(&self, new: Filter, max_changed: impl FnOnce(LevelFilter)) -> bool {
        let summary = summary(&new);
        let max = new.max();
        let old = {
            let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
            if *filter == new {
                return false;
            }
            self.max.store(summary, Ordering::Relaxed);
            max_changed(max);
            std::mem::replace(&mut *filter, new)
        };
        drop(old);
        true
    }
}

fn summary(filter: &Filter) -> usize {
    filter.max() as usize | if filter.targets.is_empty() { 0 } else { BY_TARGET }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(text: &str) -> LiveFilter {
        LiveFilter::new(Filter::parse(text, LevelFilter::Info).unwrap())
    }

    #[test]
    fn targets_without_a_directive_have_the_default() {
        let filter = live("chatd=debug,reactor=warn");
        assert!(filter.allows(Level::Debug, "chatd"));
        assert!(filter.allows(Level::Debug, "chatd::session"));
        assert!(!filter.allows(Level::Trace, "chatd::session"));
        assert!(!filter.allows(Level::Info, "reactor::poll"));
        assert!(filter.allows(Level::Info, "store"));
        assert!(!filter.allows(Level::Debug, "store"));
    }

    #[test]
    fn a_target_ends_at_a_module_boundary() {
        assert!(!live("log=trace").allows(Level::Debug, "logd"));
        assert!(live("log=trace").allows(Level::Debug, "log::x"));
    }

    #[test]
    fn the_closest_directive_decides_whatever_their_order() {
        for text in ["a=off,a::b=trace,a::b::c=warn", "a::b::c=warn,a::b=trace,a=off"] {
            let filter = live(text);
            assert!(!filter.allows(Level::Error, "a::x"));
            assert!(filter.allows(Level::Trace, "a::b::x"));
            assert!(!filter.allows(Level::Info, "a::b::c"));
        }
    }

    #[test]
    fn a_bare_level_is_the_default_and_a_bare_target_has_all() {
        let filter = live(" WARN , chatd ");
        assert!(!filter.allows(Level::Info, "store"));
        assert!(filter.allows(Level::Trace, "chatd"));
    }

    #[test]
    fn off_lets_nothing_pass() {
        assert!(!live("off").allows(Level::Error, "chatd"));
        assert_eq!(Filter::parse("off", LevelFilter::Info).unwrap().max(), LevelFilter::Off);
    }

    #[test]
    fn of_two_directives_for_one_target_the_last_counts() {
        assert!(live("a=off,a=debug").allows(Level::Debug, "a"));
    }

    #[test]
    fn a_bad_directive_is_named() {
        for bad in ["chatd=loud", "=info", "a=b=c", "a b=info", "info/regex"] {
            let error = Filter::parse(&format!("info,{bad},x=warn"), LevelFilter::Info).unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn a_new_filter_holds_at_once() {
        let filter = live("info");
        assert!(!filter.allows(Level::Debug, "a"));
        let new = Filter::parse("a=debug", LevelFilter::Off).unwrap();
        let mut max = None;
        assert!(filter.set(new.clone(), |level| max = Some(level)));
        assert_eq!(max, Some(LevelFilter::Debug));
        assert!(!filter.set(new, |_| panic!("nothing changed")));
        assert!(filter.allows(Level::Debug, "a"));
        assert!(!filter.allows(Level::Error, "b"));
    }
}
