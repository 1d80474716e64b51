//! The log of the client: off unless it is asked for, since a terminal belongs to the chat.

use std::env;
use std::fs;
use std::path::PathBuf;

use asynclog::{Builder, Guard, RollConfig};

use crate::error::CliError;

/// Starts the log when `--log-file` is given, with a file or without.
///
/// # Errors
/// When the file cannot be written or the levels make no sense.
#[expect(clippy::option_option, reason = "absent, present, and present with a value are three cases")]
pub(crate) fn start(file: Option<Option<PathBuf>>) -> Result<Option<Guard>, CliError> {
    let Some(file) = file else { return Ok(None) };
    let file = match file {
        Some(file) => file,
        None => {
            let folder = state_folder();
            fs::create_dir_all(&folder).map_err(CliError::io("cannot make the state folder"))?;
            folder.join("chatcli.log")
        }
    };
    let filter = env::var("CHATCLI_LOG").unwrap_or_default();
    Ok(Some(Builder::new().file(file).filter(filter).roll(RollConfig::default()).install()?))
}

/// Where this user's programs keep what is neither configuration nor data.
pub(crate) fn state_folder() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    base.unwrap_or_else(env::temp_dir).join("chatcli")
}
