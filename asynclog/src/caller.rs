//! What the log knows of the thread that calls it: its label, and whether it may wait.

use std::cell::Cell;
use std::thread;

/// Longer thread names are cut: the operating system keeps 15 bytes, people read not many more.
const LABEL_BYTES_MAX: usize = 31;

/// Both have no destructor, so they can be used from another thread-local's destructor at thread exit.
#[derive(Clone, Copy)]
struct Label {
    bytes: [u8; LABEL_BYTES_MAX],
    len: u8,
}

thread_local! {
    static LABEL: Cell<Label> = const { Cell::new(Label { bytes: [0; LABEL_BYTES_MAX], len: 0 }) };
    static NEVER_WAITS: Cell<bool> = const { Cell::new(false) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Declares that the current thread runs an event loop: logging on it never waits, whatever [`Overflow`](crate::Overflow) says, and
/// [`Guard::barrier`](crate::Guard::barrier) on it is an error. For the rest of the thread's life.
///
/// ```
/// std::thread::spawn(|| {
///     asynclog::mark_loop_thread();
///     log::info!("the loop starts");
/// });
/// ```
pub fn mark_loop_thread() {
    let _ = NEVER_WAITS.try_with(|mark| mark.set(true));
}

/// The current thread must not wait.
pub(crate) fn never_waits() -> bool {
    NEVER_WAITS.try_with(Cell::get).unwrap_or(true)
}

/// Marks one of the log's own threads: it must not wait for itself.
pub(crate) fn mark_inside() {
    mark_loop_thread();
    let _ = INSIDE.try_with(|mark| mark.set(true));
}

/// The current thread is one of the log's own.
pub(crate) fn is_inside() -> bool {
    INSIDE.try_with(Cell::get).unwrap_or(false)
}

/// Calls `f` with the current thread's name, or `thread-N` when it has none.
pub(crate) fn with_label<R>(f: impl FnOnce(&str) -> R) -> R {
    let mut label = LABEL.try_with(Cell::get).unwrap_or(Label { bytes: [0; LABEL_BYTES_MAX], len: 0 });
    if label.len == 0 {
        label = Label::of_current();
        let _ = LABEL.try_with(|cell| cell.set(label));
    }
    f(label.as_str())
}

impl Label {
    fn of_current() -> Self {
        let thread = thread::current();
        match thread.name() {
            Some(name) if !name.is_empty() => Self::new(name),
            _ => {
                let id = format!("{:?}", thread.id());
                let digits: String = id.chars().filter(char::is_ascii_digit).collect();
                Self::new(&format!("thread-{digits}"))
            }
        }
    }

    fn new(name: &str) -> Self {
        let mut label = Self { bytes: [0; LABEL_BYTES_MAX], len: 0 };
        let cut = name.floor_char_boundary(LABEL_BYTES_MAX);
        for (to, from) in label.bytes.iter_mut().zip(name.as_bytes().iter().take(cut)) {
            *to = *from;
            label.len += 1;
        }
        label
    }

    fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_thread_is_called_by_its_name() {
        let label = thread::Builder::new().name("io-3".into()).spawn(|| with_label(str::to_owned)).unwrap();
        assert_eq!(label.join().unwrap(), "io-3");
    }

    #[test]
    fn a_nameless_thread_has_a_label_of_its_own() {
        let one = thread::spawn(|| with_label(str::to_owned)).join().unwrap();
        let two = thread::spawn(|| with_label(str::to_owned)).join().unwrap();
        assert!(one.starts_with("thread-"), "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let label = Label::new(&"ä".repeat(40));
        assert_eq!(label.as_str(), "ä".repeat(15));
    }

    #[test]
    fn the_loop_mark_belongs_to_one_thread() {
        thread::spawn(|| {
            mark_loop_thread();
            assert!(never_waits());
        })
        .join()
        .unwrap();
        assert!(!never_waits());
    }
}
