//! The lines that users write, and what their texts carry.

use std::time::Instant;

use hdrhistogram::Histogram;

/// Digits of a message's number at the start of its text.
pub(crate) const DIGITS: usize = 12;
/// The shortest text that holds the number and a time.
pub(crate) const TEXT_BYTES_MIN: usize = 2 * DIGITS;
/// Pushes after which a user acks without waiting for the timer: an eighth of the server's push window.
pub(crate) const ACK_PUSHES: u32 = 32;
/// How long a resend waits when the server does not say.
pub(crate) const RESEND_MS: u64 = 100;
/// The longest latency that is told from longer ones, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    User(u64),
    Conv(u64),
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    /// Of the request, and of the message among its sender's.
    pub(crate) number: u64,
    pub(crate) run_id: &'a str,
    pub(crate) sender: u64,
    pub(crate) to: To,
    /// Stands behind the number in the text.
    pub(crate) time: u64,
    pub(crate) text_bytes: usize,
}

/// Writes a `send` into an empty line.
pub(crate) fn write_send(draft: &Draft<'_>, line: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    line.clear();
    line.extend_from_slice(br#"{"type":"send","id":"#);
    line.extend_from_slice(digits.format(draft.number).as_bytes());
    line.extend_from_slice(br#","client_id":""#);
    line.extend_from_slice(draft.run_id.as_bytes());
    line.push(b'-');
    line.extend_from_slice(digits.format(draft.sender).as_bytes());
    line.push(b'-');
    line.extend_from_slice(digits.format(draft.number).as_bytes());
    let (key, to): (&[u8], u64) = match draft.to {
        To::User(user) => (br#"","user":"#, user),
        To::Conv(conv) => (br#"","conv":"#, conv),
    };
    line.extend_from_slice(key);
    line.extend_from_slice(digits.format(to).as_bytes());
    line.extend_from_slice(br#","text":""#);
    let text = line.len();
    write_number(draft.number, line);
    write_number(draft.time, line);
    let letters = b" the quick brown fox jumps over the lazy dog".iter().cycle();
    let wanted = draft.text_bytes.saturating_sub(line.len() - text);
    line.extend(letters.take(wanted));
    line.extend_from_slice(b"\"}\n");
}

/// Writes an `ack` into an empty line.
pub(crate) fn write_ack(conv: u64, seq: u64, line: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    line.clear();
    line.extend_from_slice(br#"{"type":"ack","conv":"#);
    line.extend_from_slice(digits.format(conv).as_bytes());
    line.extend_from_slice(br#","seq":"#);
    line.extend_from_slice(digits.format(seq).as_bytes());
    line.extend_from_slice(b"}\n");
}

fn write_number(number: u64, line: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let number = digits.format(number).as_bytes();
    line.resize(line.len() + DIGITS.saturating_sub(number.len()), b'0');
    line.extend_from_slice(number);
}

/// The number at the start of a message's text.
pub(crate) fn text_number(text: &[u8]) -> Option<u64> {
    number(text.get(..DIGITS)?)
}

/// The time behind it.
pub(crate) fn text_time(text: &[u8]) -> Option<u64> {
    number(text.get(DIGITS..2 * DIGITS)?)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// An empty histogram of microseconds.
pub(crate) fn histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).ok()
}

/// Notes how long something took.
pub(crate) fn record(histogram: &mut Histogram<u64>, now: Instant, sent: Instant) {
    let us = now.saturating_duration_since(sent).as_micros();
    histogram.saturating_record(u64::try_from(us).unwrap_or(u64::MAX).max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_carries_its_number_and_time() {
        let draft =
            Draft { number: 42, run_id: "r", sender: 7, to: To::Conv(5), time: 1_234, text_bytes: 30 };
        let mut line = Vec::new();
        write_send(&draft, &mut line);
        let sent: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let wanted = serde_json::json!({
            "type": "send", "id": 42, "client_id": "r-7-42", "conv": 5, "text": "000000000042000000001234 the q",
        });
        assert_eq!(sent, wanted);
        let text = sent["text"].as_str().unwrap().as_bytes();
        assert_eq!((text_number(text), text_time(text)), (Some(42), Some(1_234)));
        assert_eq!(text_number(b"00000000004"), None);
        assert_eq!(text_number(b"00000000004x"), None);
    }
}
