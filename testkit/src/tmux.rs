//! A terminal that a test can read: one `tmux` session on a server of its own.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Reaper, need_program, try_wait_until};

/// Nothing of the user's own configuration; the pane stays when its program ends, so the last screen can still be read.
const CONF: &str = "set -g status off
set -g remain-on-exit on
set -g remain-on-exit-format ''
set -g default-terminal screen-256color
set -sg escape-time 0
set -g history-limit 5000
";

/// Runs the program as a child and keeps how it ended: what tmux itself knows about that is not always there. `$1` is the folder for
/// its notes; the rest is the program. The traps keep a Ctrl-C from ending this shell, and are not inherited.
const RUNNER: &str = r#"trap : INT QUIT
sh -c 'echo $$ > "$1/pid.new" && mv "$1/pid.new" "$1/pid" && shift && exec env "$@"' sh "$@"
echo $? > "$1/exit.new" && mv "$1/exit.new" "$1/exit"
"#;

/// A program in a terminal of a given size. Dropping it ends the terminal and the program.
#[derive(Debug)]
pub struct Tmux {
    dir: TempDir,
    _reaper: Reaper,
}

impl Tmux {
    /// Whether `tmux` is there; see [`need_program`].
    #[track_caller]
    pub fn available() -> bool {
        need_program("tmux")
    }

    /// Runs `command` (a program and its arguments) with `env` added to the environment, in a terminal of `cols` × `rows`.
    #[track_caller]
    pub fn new(cols: u16, rows: u16, command: &[&str], env: &[(&str, &str)]) -> Tmux {
        let dir = tempfile::Builder::new().prefix("tmux-").tempdir().expect("a temporary folder");
        fs::write(dir.path().join("conf"), CONF).expect("write tmux's configuration");
        let socket = dir.path().join("s");
        let reaper =
            Reaper::new("tmux -S \"$1\" kill-server; rm -rf -- \"$2\"", &[socket.as_path(), dir.path()]);
        let tmux = Tmux { dir, _reaper: reaper };
        let (cols, rows) = (cols.to_string(), rows.to_string());
        let mut args = vec!["new-session", "-d", "-x", &cols, "-y", &rows, "--"];
        let pairs: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let notes = tmux.dir.path().display().to_string();
        args.extend(["sh", "-c", RUNNER, "sh", &notes]);
        args.extend(pairs.iter().map(String::as_str));
        args.extend(command);
        tmux.run(&args);
        tmux
    }

    /// Sends keys by tmux's names: `["Enter"]`, `["C-c"]`, `["Up", "Up"]`, `["M-x"]`.
    #[track_caller]
    pub fn send_keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys", "--"], keys].concat());
    }

    /// Types text literally.
    #[track_caller]
    pub fn send_text(&self, text: &str) {
        self.run(&["send-keys", "-l", "--", text]);
    }

    /// Types text literally, then Enter.
    #[track_caller]
    pub fn send_line(&self, text: &str) {
        self.send_text(text);
        self.send_keys(&["Enter"]);
    }

    /// The screen as text, one line per row, without trailing blanks.
    #[track_caller]
    pub fn capture(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// The screen and what has scrolled out of it.
    #[track_caller]
    pub fn capture_all(&self) -> String {
        self.run(&["capture-pane", "-p", "-S", "-"])
    }

    /// Waits until the screen contains `text`; that screen.
    ///
    /// # Panics
    /// When it does not within `timeout`, showing the last screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str, timeout: Duration) -> String {
        self.wait_for_screen(&format!("the text {text:?}"), timeout, |screen| screen.contains(text))
    }

    /// Waits until `cond` holds for the screen; that screen. `what` is for the message when it does not.
    ///
    /// # Panics
    /// When it does not within `timeout`, showing the last screen.
    #[track_caller]
    pub fn wait_for_screen(
        &self,
        what: &str,
        timeout: Duration,
        mut cond: impl FnMut(&str) -> bool,
    ) -> String {
        let mut screen = String::new();
        let seen = try_wait_until(timeout, || {
            screen = self.capture();
            cond(&screen)
        });
        assert!(seen, "waited {timeout:?} in vain for {what}; the screen is\n{}", framed(&screen));
        screen
    }

    /// Gives the terminal another size.
    #[track_caller]
    pub fn resize(&self, cols: u16, rows: u16) {
        self.run(&["resize-window", "-x", &cols.to_string(), "-y", &rows.to_string()]);
    }

    /// Where the cursor is: column and row, from 0.
    #[track_caller]
    pub fn cursor(&self) -> (u16, u16) {
        let text = self.run(&["display-message", "-p", "#{cursor_x} #{cursor_y}"]);
        let mut numbers = text.split_whitespace().map(|n| n.parse().expect("a cursor position"));
        (numbers.next().expect("a column"), numbers.next().expect("a row"))
    }

    /// The process id of the program in the terminal.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let mut pid = None;
        try_wait_until(Duration::from_secs(10), || {
            pid = self.note("pid");
            pid.is_some()
        });
        pid.expect("the program has not been started")
    }

    /// How the program ended: its exit code, or 128 and the signal's number; `None` while it runs.
    pub fn exit_code(&self) -> Option<i32> {
        self.note("exit")
    }

    /// Waits until the program has ended; as [`Tmux::exit_code`].
    ///
    /// # Panics
    /// When it does not end within `timeout`, showing the last screen.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> i32 {
        let mut code = None;
        try_wait_until(timeout, || {
            code = self.exit_code();
            code.is_some()
        });
        match code {
            Some(code) => code,
            None => panic!("it still runs after {timeout:?}; the screen is\n{}", framed(&self.capture())),
        }
    }

    /// A number that the runner wrote.
    fn note<T: FromStr>(&self, name: &str) -> Option<T> {
        fs::read_to_string(self.dir.path().join(name)).ok()?.trim().parse().ok()
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.tmux(args);
        assert!(
            output.status.success(),
            "tmux {args:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn tmux<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        Command::new("tmux")
            .arg("-u")
            .arg("-S")
            .arg(self.dir.path().join("s"))
            .arg("-f")
            .arg(self.dir.path().join("conf"))
            .args(args)
            // So that it also works from inside somebody's tmux, and speaks UTF-8 in a bare environment.
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .expect("run tmux")
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn framed(screen: &str) -> String {
    screen.trim_end().lines().map(|l| format!("  | {l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(15);

    #[test]
    fn what_is_typed_is_seen_and_the_exit_code_is_known() {
        if !Tmux::available() {
            return;
        }
        let script = "stty -echo; echo \"$GREETING\"; read -r line; echo \"got <$line>\"; exit 7";
        let tmux = Tmux::new(60, 10, &["sh", "-c", script], &[("GREETING", "grüße — 漢字")]);
        tmux.wait_for("grüße — 漢字", LONG);
        assert_eq!(tmux.exit_code(), None);
        tmux.send_line("-x; $HOME 'ü'");
        tmux.wait_for("got <-x; $HOME 'ü'>", LONG);
        assert_eq!(tmux.wait_exit(LONG), 7);
    }

    #[test]
    fn keys_signals_and_sizes_reach_the_program() {
        if !Tmux::available() {
            return;
        }
        let script =
            "trap 'echo interrupted' INT; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
        let tmux = Tmux::new(40, 10, &["sh", "-c", script], &[]);
        tmux.wait_for("ready", LONG);
        tmux.send_keys(&["C-c"]);
        tmux.wait_for("interrupted", LONG);
        tmux.resize(71, 13);
        tmux.wait_for("13 71", LONG);
        let pid = tmux.pid();
        assert_eq!(tmux.exit_code(), None);
        drop(tmux);
        crate::wait_until("the program is gone with its terminal", LONG, || !crate::process::is_alive(pid));
    }
}
