//! The names of nodes.

use super::super::Instance;

/// The folder of all services.
pub(super) const ROOT: &str = "/chat/services";

/// The node of a service. A name cannot leave its place: what means something in a path is written as `_`.
pub(super) fn service(root: &str, service: &str) -> String {
    format!("{root}/{}", plain(service))
}

/// The name of an instance's node: its address, then its id.
pub(super) fn node(instance: &Instance) -> String {
    format!("{}-{}", instance.address, plain(&instance.id))
}

/// Whether a node is that of somebody at this address.
pub(super) fn is_at(node: &str, instance: &Instance) -> bool {
    node.strip_prefix(&instance.address.to_string()).is_some_and(|rest| rest.starts_with('-'))
}

/// A path and all that lead to it, the shortest first.
pub(super) fn ancestors(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    ends.filter_map(|end| path.get(..end)).filter(|path| path.len() > 1).map(str::to_owned).collect()
}

fn plain(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let plain: String = name.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    if plain.chars().all(|letter| letter == '.') { plain.replace('.', "_") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place() {
        assert_eq!(service(ROOT, "chat.Login"), "/chat/services/chat.Login");
        assert_eq!(service(ROOT, "../../zookeeper"), "/chat/services/.._.._zookeeper");
        assert_eq!(service(ROOT, ".."), "/chat/services/__");
        let instance = Instance::new("a/b", "10.0.0.1:70".parse().unwrap());
        assert_eq!(node(&instance), "10.0.0.1:70-a_b");
        assert!(is_at("10.0.0.1:70-other", &instance));
        assert!(!is_at("10.0.0.1:7000-other", &instance));
    }

    #[test]
    fn a_path_is_made_from_its_beginning() {
        assert_eq!(ancestors("/a/b/c"), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(ancestors("/a"), ["/a"]);
    }
}
