//! The bytes that every connection sends: each known by its place in the stream.

/// No power of two and no divisor of a usual size, so that a block that is lost, doubled or moved shows.
const PERIOD: usize = 251;

/// Most bytes of one write. Large, so that a bulk transfer is not bounded by the client's calls.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// The pattern, long enough for a chunk from any place.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Self {
        let bytes = (0..PERIOD).filter_map(|at| u8::try_from(at).ok());
        Self(bytes.cycle().take(CHUNK_BYTES + PERIOD).collect())
    }

    /// The stream from `position`, at most `length` bytes and at most a chunk.
    pub(crate) fn at(&self, position: u64, length: u64) -> &[u8] {
        let period = PERIOD as u64;
        let from = usize::try_from(position % period).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        self.0.get(from..from + length).unwrap_or_default()
    }

    /// The first place from `position` on where `bytes` is not the stream.
    pub(crate) fn differs(&self, position: u64, bytes: &[u8]) -> Option<u64> {
        let mut at = position;
        for block in bytes.chunks(CHUNK_BYTES) {
            let wanted = self.at(at, block.len() as u64);
            if wanted != block {
                let same = wanted.iter().zip(block).take_while(|(wanted, got)| wanted == got).count();
                return Some(at + same as u64);
            }
            at += block.len() as u64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_at_its_place() {
        let pattern = Pattern::new();
        for position in [0, 7, 250, 251, 1_000_003] {
            let mut bytes = pattern.at(position, 600).to_vec();
            assert_eq!(pattern.differs(position, &bytes), None);
            bytes[599] ^= 1;
            assert_eq!(pattern.differs(position, &bytes), Some(position + 599));
        }
    }

    #[test]
    fn a_block_that_moved_shows() {
        let pattern = Pattern::new();
        for shift in [1, 64, 1024, 16 * 1024, 65_536] {
            assert_eq!(pattern.differs(shift, pattern.at(0, 64)), Some(shift), "by {shift}");
        }
    }

    #[test]
    fn a_chunk_is_what_one_write_has_at_most() {
        assert_eq!(Pattern::new().at(250, u64::MAX).len(), CHUNK_BYTES);
    }
}
