//! What is never worth a line in the log, unless somebody asks for it.

/// The filter as the operator gave it, behind what is muted. The ZooKeeper client writes thousands of lines in a moment while its server is away, and the
/// registry itself says what there is to say of that. `zookeeper=info` in the filter brings them back.
#[must_use]
pub fn log_filter(given: &str) -> String {
    format!("zookeeper=off,{given}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_last_so_that_it_wins() {
        assert_eq!(log_filter("info,zookeeper=warn"), "zookeeper=off,info,zookeeper=warn");
    }
}
