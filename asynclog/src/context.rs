//! Fields that every record of a thread bears for a while: the request it works for, the user.

use std::cell::RefCell;
use std::fmt::{Display, Write};
use std::marker::PhantomData;

use crate::Format;
use crate::compose;

/// What a thread's fields may be long together, in bytes; what would be longer is left out, for each record copies them.
const CONTEXT_BYTES_MAX: usize = 512;

thread_local! {
    static CONTEXT: RefCell<Fields> = const { RefCell::new(Fields { text: Vec::new(), json: Vec::new() }) };
}

/// A thread's fields as each format has them: which logs a thread has is not known when a field is set.
struct Fields {
    text: Vec<u8>,
    json: Vec<u8>,
}

/// Keeps a field for as long as it lives. Made by [`context`]; bound to its thread.
///
/// ```compile_fail
/// fn assert_send<T: Send>() {}
/// assert_send::<asynclog::Context>();
/// ```
#[derive(Debug)]
#[must_use = "the field ends when this is dropped"]
pub struct Context {
    /// The lengths without this field and those that came after it.
    before: Option<(usize, usize)>,
    _bound: PhantomData<*const ()>,
}

/// Gives all records of this thread a field, ` key=value` behind the place of the call, until what is returned is dropped; later fields end with
/// it. Spaces and what could forge a line are escaped.
///
/// ```
/// let _request = asynclog::context("conv", 55);
/// log::info!("sent"); // … chatd::session session.rs:142 conv=55 #4.1042 | sent
/// ```
pub fn context(key: &str, value: impl Display) -> Context {
    // Formatted outside the borrow: the value may log.
    let mut shown = String::new();
    let _ = write!(shown, "{value}");
    let (mut text, mut json) = (Vec::new(), Vec::new());
    compose::push_text_field(&mut text, key, &shown);
    compose::push_json_field(&mut json, key, &shown);
    let before = CONTEXT.try_with(|context| {
        let mut context = context.try_borrow_mut().ok()?;
        let Fields { text: texts, json: jsons } = &mut *context;
        let before = (texts.len(), jsons.len());
        // One more for what separates it.
        if texts.len() + text.len() < CONTEXT_BYTES_MAX && jsons.len() + json.len() < CONTEXT_BYTES_MAX {
            append(texts, &text, Format::Text);
            append(jsons, &json, Format::Json);
        }
        Some(before)
    });
    Context { before: before.ok().flatten(), _bound: PhantomData }
}

fn append(fields: &mut Vec<u8>, field: &[u8], format: Format) {
    if !fields.is_empty() {
        fields.push(compose::separator(format));
    }
    fields.extend_from_slice(field);
}

impl Drop for Context {
    fn drop(&mut self) {
        let Some((text, json)) = self.before else { return };
        let _ = CONTEXT.try_with(|context| {
            if let Ok(mut context) = context.try_borrow_mut() {
                context.text.truncate(text);
                context.json.truncate(json);
            }
        });
    }
}

/// Appends the current thread's fields.
pub(crate) fn append_to(out: &mut Vec<u8>, format: Format) {
    let _ = CONTEXT.try_with(|context| {
        if let Ok(context) = context.try_borrow() {
            out.extend_from_slice(match format {
                Format::Text => &context.text,
                Format::Json => &context.json,
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> String {
        let mut out = Vec::new();
        append_to(&mut out, Format::Text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_last_as_long_as_their_guards() {
        let conv = context("conv", 55);
        {
            let _user = context("user", "ann");
            assert_eq!(now(), "conv=55 user=ann");
        }
        assert_eq!(now(), "conv=55");
        std::thread::spawn(|| assert_eq!(now(), "")).join().unwrap();
        drop(conv);
        assert_eq!(now(), "");
    }

    #[test]
    fn a_value_cannot_end_its_field_or_the_line() {
        let _name = context("na me", "a b | c\nd=e");
        assert_eq!(now(), "na\\x20me=a\\x20b\\x20|\\x20c\\nd=e");
    }

    #[test]
    fn a_context_that_is_too_long_is_left_out_whole() {
        let _short = context("a", 1);
        let _long = context("b", "y".repeat(1000));
        let _longer = context("b", "z".repeat(1000));
        let _next = context("c", 3);
        // The first of the two has been cut at the longest field, the second had no room.
        assert!(now().starts_with("a=1 b=yy") && now().ends_with("y... c=3"), "{}", now());
    }
}
