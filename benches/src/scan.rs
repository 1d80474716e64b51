//! A quick look at a line from the server: the top-level fields that the load generator needs, and nothing else.
//!
//! A load generator that parsed every line into a tree would be slower than the server it loads. This looks at each byte once and allocates nothing. It
//! takes fields in any order, with any white space, and skips those it does not know, as the protocol asks of a client.

/// What a line from the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ok,
    Error,
    Hello,
    Bye,
    Message,
    Synced,
    /// Anything else; the load generator has no use for it.
    Other,
}

/// The fields of a line. What is not there is 0 or empty; strings are as they were on the wire, with their escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: Option<u64>,
    pub(crate) conv: u64,
    pub(crate) seq: u64,
    pub(crate) user: u64,
    pub(crate) from: u64,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) duplicate: bool,
    pub(crate) text: &'a [u8],
    pub(crate) token: &'a [u8],
    pub(crate) code: &'a [u8],
    pub(crate) message: &'a [u8],
}

impl Line<'_> {
    /// The error's or bye's code and words, for people.
    pub(crate) fn words(&self) -> String {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        format!("{} ({})", text(self.code), text(self.message))
    }
}

/// A value as far as it is looked at.
enum Value<'a> {
    Number(u64),
    Text(&'a [u8]),
    True,
    Else,
}

/// Reads a line. `None`: it is no JSON object.
pub(crate) fn scan(line: &[u8]) -> Option<Line<'_>> {
    let mut found = Line {
        kind: Kind::Other,
        id: None,
        conv: 0,
        seq: 0,
        user: 0,
        from: 0,
        retry_after_ms: None,
        duplicate: false,
        text: b"",
        token: b"",
        code: b"",
        message: b"",
    };
    let mut rest = blank(line).strip_prefix(b"{")?;
    rest = blank(rest);
    if rest.starts_with(b"}") {
        return Some(found);
    }
    loop {
        let (key, behind) = text(blank(rest))?;
        let behind = blank(behind).strip_prefix(b":")?;
        let (value, behind) = value(blank(behind))?;
        found.take(key, &value);
        rest = blank(behind);
        match rest.split_first()? {
            (b',', behind) => rest = behind,
            (b'}', _) => return Some(found),
            _ => return None,
        }
    }
}

impl<'a> Line<'a> {
    fn take(&mut self, key: &[u8], value: &Value<'a>) {
        match (key, value) {
            (b"type", Value::Text(name)) => self.kind = kind(name),
            (b"id", Value::Number(number)) => self.id = Some(*number),
            (b"conv", Value::Number(number)) => self.conv = *number,
            (b"seq", Value::Number(number)) => self.seq = *number,
            (b"user", Value::Number(number)) => self.user = *number,
            (b"from", Value::Number(number)) => self.from = *number,
            (b"retry_after_ms", Value::Number(number)) => self.retry_after_ms = Some(*number),
            (b"duplicate", Value::True) => self.duplicate = true,
            (b"text", Value::Text(text)) => self.text = text,
            (b"token", Value::Text(text)) => self.token = text,
            (b"code", Value::Text(text)) => self.code = text,
            (b"message", Value::Text(text)) => self.message = text,
            _ => {}
        }
    }
}

fn kind(name: &[u8]) -> Kind {
    match name {
        b"ok" => Kind::Ok,
        b"error" => Kind::Error,
        b"message" => Kind::Message,
        b"hello" => Kind::Hello,
        b"bye" => Kind::Bye,
        b"synced" => Kind::Synced,
        _ => Kind::Other,
    }
}

fn blank(mut bytes: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = bytes.split_first() {
        bytes = rest;
    }
    bytes
}

/// A string and what is behind it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = bytes.strip_prefix(b"\"")?;
    let mut from = 0;
    loop {
        let rest = inside.get(from..)?;
        let at = from + rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if inside.get(at) == Some(&b'"') {
            return Some((inside.get(..at)?, inside.get(at + 1..)?));
        }
        from = at + 2;
    }
}

fn value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    match bytes.first()? {
        b'"' => text(bytes).map(|(text, rest)| (Value::Text(text), rest)),
        b'0'..=b'9' => number(bytes),
        b'{' | b'[' => Some((Value::Else, nested(bytes)?)),
        _ => {
            // true, false, null, or a number that no id can be.
            let end = bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r'))?;
            let (word, rest) = bytes.split_at_checked(end)?;
            Some((if word == b"true" { Value::True } else { Value::Else }, rest))
        }
    }
}

fn number(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let mut number = 0_u64;
    let mut rest = bytes;
    while let Some((digit @ b'0'..=b'9', behind)) = rest.split_first() {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        rest = behind;
    }
    if rest.first().is_some_and(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        let end = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b' '))?;
        return Some((Value::Else, rest.get(end..)?));
    }
    Some((Value::Number(number), rest))
}

/// What is behind an object or a list.
fn nested(bytes: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut rest = bytes;
    loop {
        match rest.first()? {
            b'"' => {
                rest = text(rest)?.1;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        rest = rest.get(1..)?;
        if depth == 0 {
            return Some(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_shows_who_wrote_what_where() {
        let line = br#"{"type":"message","conv":55,"kind":"direct","seq":103,"from":12,"from_name":"b\"ob","to":7,"to_name":"amy","text":"000000000042 hi","time_ms":1}"#;
        let found = scan(line).unwrap();
        assert_eq!((found.kind, found.conv, found.seq, found.from), (Kind::Message, 55, 103, 12));
        assert_eq!(found.text, b"000000000042 hi");
        assert_eq!(found.id, None);
    }

    #[test]
    fn fields_come_in_any_order_and_with_any_blanks() {
        let found =
            scan(b" { \"seq\" : 3 ,\t\"id\":0, \"type\" : \"ok\" , \"duplicate\" : true , \"conv\":1}\r")
                .unwrap();
        assert_eq!((found.kind, found.id, found.seq, found.conv), (Kind::Ok, Some(0), 3, 1));
        assert!(found.duplicate);
    }

    #[test]
    fn unknown_fields_of_every_shape_are_passed_over() {
        let line = br#"{"a":{"seq":9,"b":["}",{}]},"c":[],"d":null,"e":-1,"f":1.5e3,"g":false,"h":"\\","type":"bye","code":"idle"}"#;
        let found = scan(line).unwrap();
        assert_eq!((found.kind, found.seq, found.code), (Kind::Bye, 0, b"idle".as_slice()));
    }

    #[test]
    fn what_is_no_object_is_nothing() {
        for line in [
            "",
            "[]",
            "x",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":\"",
            "{\"a\":1",
            "{\"a\":1;}",
            "{\"a\":99999999999999999999}",
        ] {
            assert_eq!(scan(line.as_bytes()), None, "{line}");
        }
        assert_eq!(scan(b"{}").unwrap().kind, Kind::Other);
    }

    #[test]
    fn what_serde_writes_is_read_the_same() {
        let value = serde_json::json!({"type": "error", "id": 7, "code": "overloaded", "message": "a \"b\" \\ \u{1F44B}\n", "retry_after_ms": 500});
        let text = value.to_string();
        let found = scan(text.as_bytes()).unwrap();
        assert_eq!((found.kind, found.id, found.retry_after_ms), (Kind::Error, Some(7), Some(500)));
        assert_eq!(found.code, b"overloaded");
    }
}
