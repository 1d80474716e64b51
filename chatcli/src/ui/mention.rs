//! Whether a text speaks to somebody: `@` and their name.

use schema::text::name_key;

/// Whether `text` has `@` and the name whose key is `key` in it.
pub(crate) fn mentions(text: &str, key: &str) -> bool {
    let mut rest = text;
    let mut before = None;
    while let Some(at) = rest.find('@') {
        let (head, tail) = rest.split_at(at);
        before = head.chars().next_back().or(before);
        let name = tail.get(1..).unwrap_or_default();
        let end = name.find(|c| !is_name_char(c)).unwrap_or(name.len());
        let (name, behind) = name.split_at(end);
        // An address has something before its sign.
        let stands_alone = before.is_none_or(|c| !is_name_char(c));
        if stands_alone && is_called(name, key) {
            return true;
        }
        before = name.chars().next_back().or(Some('@'));
        rest = behind;
    }
    false
}

/// A name at the end of a sentence has signs behind it that could be its own.
fn is_called(name: &str, key: &str) -> bool {
    name_key(name) == key || name_key(name.trim_end_matches(['.', '-', '_'])) == key
}

fn is_name_char(c: char) -> bool {
    // A combining mark is no letter by itself, and belongs to the one before it.
    c.is_alphanumeric()
        || matches!(c, '_' | '-' | '.')
        || unicode_width::UnicodeWidthChar::width(c) == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_behind_its_sign_is_a_mention() {
        for text in ["@amy", "hi @amy!", "(@Amy)", "so, @AMY.", "@bob @amy: lunch?", "@Ａmy", "a@b.c, @amy"]
        {
            assert!(mentions(text, "amy"), "{text}");
        }
        assert!(mentions("你好 @李雷，吃饭吗", &name_key("李雷")));
        assert!(mentions("@e\u{301}va", &name_key("éva")));
    }

    #[test]
    fn other_names_and_addresses_are_none() {
        for text in ["amy", "@amyx", "x@amy", "@ amy", "@", "", "@@", "@bob", "amy@amy.example", "@amy-2"] {
            assert!(!mentions(text, "amy"), "{text}");
        }
    }
}
