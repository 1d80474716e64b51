//! How things look: colours for a dark or a light terminal, or none, and whose time is shown.

use std::ffi::OsStr;

#[cfg(test)]
use chrono::FixedOffset;
use chrono::{DateTime, Local, NaiveDate, Utc};
use ratatui::style::{Color, Modifier, Style};

/// What the terminal's background is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Look {
    /// As the terminal says in COLORFGBG, else dark
    Auto,
    /// Bright letters
    Dark,
    /// Dark letters
    Light,
}

/// Which time is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// That of this machine.
    Local,
    /// A fixed one, for tests.
    #[cfg(test)]
    Fixed(FixedOffset),
}

impl Zone {
    /// The day and the time of day.
    pub(super) fn show(self, time_ms: u64) -> (Option<NaiveDate>, String) {
        let utc = i64::try_from(time_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
        let Some(utc) = utc else { return (None, "--:--".into()) };
        let local = match self {
            Self::Local => utc.with_timezone(&Local).naive_local(),
            #[cfg(test)]
            Self::Fixed(offset) => utc.with_timezone(&offset).naive_local(),
        };
        (Some(local.date()), local.format("%H:%M").to_string())
    }
}

/// Which colours there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Palette {
    /// None.
    Plain,
    /// Those that can be read on black.
    OnDark,
    /// Those that can be read on white.
    OnLight,
}

/// How things look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) palette: Palette,
    pub(crate) zone: Zone,
}

impl Theme {
    /// How things look here: no colours when `NO_COLOR` is set, local time.
    pub(crate) fn here(look: Look) -> Self {
        let (no_color, fg_bg) = (std::env::var_os("NO_COLOR"), std::env::var_os("COLORFGBG"));
        Self { palette: Palette::choose(look, no_color.as_deref(), fg_bg.as_deref()), zone: Zone::Local }
    }

    fn coloured(self, style: Style, dark: Color, light: Color) -> Style {
        match self.palette {
            Palette::Plain => style,
            Palette::OnDark => style.fg(dark),
            Palette::OnLight => style.fg(light),
        }
    }

    /// What is there but should not draw the eye.
    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// What went wrong.
    pub(super) fn error(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::LightRed, Color::Red)
    }

    /// What speaks to the user.
    pub(super) fn mention(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::LightYellow, Color::Red)
    }

    /// Who is online.
    pub(super) fn online(self) -> Style {
        self.coloured(Style::new(), Color::LightGreen, Color::Green)
    }

    /// A name has the same colour always.
    pub(super) fn name(self, name: &str, own: bool) -> Style {
        const DARK: [Color; 6] =
            [Color::Cyan, Color::Green, Color::Magenta, Color::Yellow, Color::LightBlue, Color::LightRed];
        const LIGHT: [Color; 6] = [
            Color::Indexed(26),
            Color::Indexed(28),
            Color::Indexed(90),
            Color::Indexed(130),
            Color::Blue,
            Color::Indexed(124),
        ];
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if own {
            return bold;
        }
        // FNV-1a; its upper half, for the lower bits of names that differ little do too.
        let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let upper = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) >> 40;
        let at = usize::try_from(upper).unwrap_or_default();
        let of = |colours: &[Color; 6]| colours.get(at % colours.len()).copied().unwrap_or(Color::Reset);
        self.coloured(bold, of(&DARK), of(&LIGHT))
    }
}

impl Palette {
    /// `NO_COLOR` is obeyed when it is there and not empty. `COLORFGBG` ends in the number of the background's colour.
    fn choose(look: Look, no_color: Option<&OsStr>, fg_bg: Option<&OsStr>) -> Self {
        if no_color.is_some_and(|value| !value.is_empty()) {
            return Self::Plain;
        }
        let background = fg_bg.and_then(OsStr::to_str).and_then(|text| text.rsplit(';').next());
        match (look, background) {
            (Look::Light, _) | (Look::Auto, Some("7" | "15")) => Self::OnLight,
            _ => Self::OnDark,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_what_was_asked_for_or_what_the_terminal_says() {
        let choose = |look, no_color: Option<&str>, fg_bg: Option<&str>| {
            Palette::choose(look, no_color.map(OsStr::new), fg_bg.map(OsStr::new))
        };
        assert_eq!(choose(Look::Auto, None, None), Palette::OnDark);
        assert_eq!(choose(Look::Auto, None, Some("0;15")), Palette::OnLight);
        assert_eq!(choose(Look::Auto, None, Some("15;default;0")), Palette::OnDark);
        assert_eq!(choose(Look::Dark, None, Some("0;15")), Palette::OnDark);
        assert_eq!(choose(Look::Light, Some(""), None), Palette::OnLight);
        assert_eq!(choose(Look::Light, Some("1"), None), Palette::Plain);
    }

    #[test]
    fn a_name_keeps_its_colour_and_own_names_have_none() {
        let theme = |palette| Theme { palette, zone: Zone::Local };
        let dark = theme(Palette::OnDark);
        assert_eq!(dark.name("bob", false), dark.name("bob", false));
        assert_ne!(dark.name("bob", false).fg, dark.name("dave", false).fg);
        assert_ne!(dark.name("bob", false).fg, theme(Palette::OnLight).name("bob", false).fg);
        assert_eq!(dark.name("amy", true).fg, None);
        for style in [theme(Palette::Plain).name("bob", false), theme(Palette::Plain).error()] {
            assert_eq!(style.fg, None);
        }
    }
}
