//! Where the filter comes from: the builder, or a file that is read again when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use log::LevelFilter;

use crate::LogError;
use crate::filter::Filter;

/// A filter names some modules; a larger file is a mistake.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the filter is read from.
#[derive(Debug)]
pub(crate) struct FilterSource {
    /// The level of targets that no directive covers.
    pub(crate) level: LevelFilter,
    /// The builder's.
    pub(crate) text: String,
    pub(crate) file: Option<PathBuf>,
    /// The log is the process's logger, whose level the facade has to know.
    pub(crate) installed: AtomicBool,
}

impl FilterSource {
    /// The filter that is to hold now, and its text. The builder's where there is no file, or none with a directive in it.
    pub(crate) fn read(&self) -> Result<(Filter, String), LogError> {
        let text = match &self.file {
            Some(path) => directives(path)
                .map_err(|source| LogError::FilterFile { path: path.clone(), source })?
                .unwrap_or_else(|| self.text.clone()),
            None => self.text.clone(),
        };
        Ok((Filter::parse(&text, self.level)?, text))
    }
}

/// The file's lines as one filter, without what is behind a `#`. None if that is nothing, or there is no such file.
fn directives(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let all: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    Ok(Some(all.join(",")).filter(|all| !all.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_lines_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("filter");
        assert_eq!(directives(&path).unwrap(), None);
        std::fs::write(&path, "# for the night\n\n info, chatd=debug # sessions\nreactor=off\n").unwrap();
        assert_eq!(directives(&path).unwrap().unwrap(), "info, chatd=debug,reactor=off");
        std::fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(directives(&path).unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_a_filter_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("filter");
        std::fs::write(&path, vec![b'a'; 65 * 1024]).unwrap();
        assert_eq!(directives(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(directives(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
