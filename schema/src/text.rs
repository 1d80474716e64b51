//! The rules for names, passwords, texts and labels.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::limits::{
    CLIENT_ID_CHARS_MAX, DEVICE_CHARS_MAX, GROUP_NAME_CHARS_MAX, NAME_CHARS_MAX, PASSWORD_BYTES_MAX,
    PASSWORD_BYTES_MIN, TEXT_BYTES_MAX,
};

/// The form under which names are equal: NFKC, lower case, and NFKC again, for lower-casing can undo it.
#[must_use]
pub fn name_key(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

/// A user's name that keeps the rules: 1 to 32 characters, each a letter, a digit or a combining mark of any script, or one of `_-.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    shown: Cow<'a, str>,
    key: String,
}

impl<'a> Name<'a> {
    /// The name, or `None` when it breaks the rules.
    #[must_use]
    pub fn new(shown: Cow<'a, str>) -> Option<Self> {
        let mut count = 0;
        for c in shown.chars() {
            count += 1;
            if count > NAME_CHARS_MAX || !is_name_char(c) {
                return None;
            }
        }
        if count == 0 {
            return None;
        }
        let key = name_key(&shown);
        // Compatibility forms can fold to what is no name (`℀` to `a/c`).
        if key.is_empty() || !key.chars().all(is_name_char) {
            return None;
        }
        Some(Self { shown, key })
    }

    /// As it was spelled.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The form under which it is unique.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The same name, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Name<'static> {
        Name { shown: Cow::Owned(self.shown.into_owned()), key: self.key }
    }
}

fn is_name_char(c: char) -> bool {
    match c {
        '_' | '-' | '.' => true,
        _ if c.is_ascii() => c.is_ascii_alphanumeric(),
        _ => match c.general_category_group() {
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark => true,
            GeneralCategoryGroup::Number => c.general_category() == GeneralCategory::DecimalNumber,
            _ => false,
        },
    }
}

/// A group's name that keeps the rules: 1 to 64 characters, none a control character. It need not be unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName<'a>(Cow<'a, str>);

impl<'a> GroupName<'a> {
    /// The name, or `None` when it breaks the rules.
    #[must_use]
    pub fn new(text: Cow<'a, str>) -> Option<Self> {
        let short = (1..=GROUP_NAME_CHARS_MAX).contains(&text.chars().take(GROUP_NAME_CHARS_MAX + 1).count());
        (short && !text.chars().any(char::is_control)).then_some(Self(text))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a text.
    #[must_use]
    pub fn into_text(self) -> Cow<'a, str> {
        self.0
    }

    /// The same name, owning its text.
    #[must_use]
    pub fn into_owned(self) -> GroupName<'static> {
        GroupName(Cow::Owned(self.0.into_owned()))
    }
}

/// Whether a password has a length that the protocol allows.
#[must_use]
pub const fn is_password(password: &str) -> bool {
    PASSWORD_BYTES_MIN <= password.len() && password.len() <= PASSWORD_BYTES_MAX
}

/// What is wrong with a message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFault {
    /// It has no byte.
    Empty,
    /// It has more than [`TEXT_BYTES_MAX`] bytes.
    TooLarge,
    /// It has a control character other than `\n` and `\t`.
    Control,
}

/// Checks a message's text.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_text(text: &str) -> Result<(), TextFault> {
    if text.is_empty() {
        return Err(TextFault::Empty);
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(TextFault::TooLarge);
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(TextFault::Control);
    }
    Ok(())
}

/// Whether a text can be a `client_id`: 1 to 64 printable ASCII characters.
#[must_use]
pub fn is_client_id(text: &str) -> bool {
    (1..=CLIENT_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

/// Whether a text can be a device's label: at most 64 characters, none a control character.
#[must_use]
pub fn is_device(text: &str) -> bool {
    text.chars().count() <= DEVICE_CHARS_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Option<Name<'_>> {
        Name::new(Cow::Borrowed(text))
    }

    #[test]
    fn names_of_every_script_are_taken() {
        for good in ["a", "bob_42", "Ünal", "李雷", "अनिल", "عمر", "a.b-c_d", "e\u{301}", "٣٤"]
        {
            assert!(name(good).is_some(), "{good} was refused");
        }
    }

    #[test]
    fn names_that_could_mislead_are_refused() {
        let long = "x".repeat(33);
        for bad in ["", " ", "a b", "a\u{0}", "a/b", "\u{202e}abc", "😀", "℀", "a\u{200b}", "½", "Ⅷ", &long]
        {
            assert!(name(bad).is_none(), "{bad:?} was taken");
        }
        assert!(name(&"ä".repeat(32)).is_some(), "characters count, not bytes");
    }

    #[test]
    fn names_are_equal_after_nfkc_and_lower_casing() {
        for (a, b) in [("Ａmy", "amy"), ("BOB", "bob"), ("e\u{301}va", "Éva"), ("ﬁn", "FIN")] {
            assert_eq!(name(a).unwrap().key(), name(b).unwrap().key());
        }
        assert_eq!(name("BoB").unwrap().shown(), "BoB");
    }

    #[test]
    fn a_groups_name_is_short_and_has_no_control_characters() {
        let group = |text: &str| GroupName::new(Cow::Owned(text.to_owned())).is_some();
        for good in ["x", " ", "Friday's lunch 🍜", "李雷的小组", &"ä".repeat(64)] {
            assert!(group(good), "{good} was refused");
        }
        for bad in ["", "a\nb", "a\tb", "\u{1b}[1m", "\u{85}", &"x".repeat(65)] {
            assert!(!group(bad), "{bad:?} was taken");
        }
    }

    #[test]
    fn texts_are_checked_by_bytes_and_control_characters() {
        assert_eq!(check_text(""), Err(TextFault::Empty));
        assert_eq!(check_text(&"x".repeat(TEXT_BYTES_MAX)), Ok(()));
        assert_eq!(check_text(&"x".repeat(TEXT_BYTES_MAX + 1)), Err(TextFault::TooLarge));
        assert_eq!(check_text("a\nb\tc"), Ok(()));
        for bad in ["a\rb", "a\0b", "\u{1b}[2J", "\u{7f}", "\u{85}"] {
            assert_eq!(check_text(bad), Err(TextFault::Control), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn folding_a_key_again_changes_nothing(text in "\\PC{1,32}") {
            let key = name_key(&text);
            let again = name_key(&key);
            prop_assert_eq!(again, key);
        }
    }
}
