//! Themes: twelve semantic styles, from which everything on the screen is derived.
//!
//! A style is written as in git's configuration: a foreground, `on` and a background, and attributes, each of them
//! optional: `"#e8b44c"`, `"white on #8f1d2c bold"`, `"reverse"`.

use std::path::{Path, PathBuf};

use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

/// The looks of everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    pub name: String,
    /// Ordinary text on the screen's background.
    pub base: Style,
    /// Text that may be overlooked.
    pub muted: Style,
    /// Rules and borders.
    pub rule: Style,
    /// Headings and what the eye should find first.
    pub strong: Style,
    /// The next action, keys, what works right now.
    pub accent: Style,
    pub good: Style,
    pub warn: Style,
    pub bad: Style,
    /// What destroys; used for nothing else.
    pub danger: Style,
    /// The step that is looked at, a match.
    pub selection: Style,
    /// The badge of production and of a real incident.
    pub production: Style,
    /// The badge of everything else.
    pub rehearsal: Style,
}

/// A file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    styles: RawStyles,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStyles {
    base: String,
    muted: String,
    rule: String,
    strong: String,
    accent: String,
    good: String,
    warn: String,
    bad: String,
    danger: String,
    selection: String,
    production: String,
    rehearsal: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ThemeError {
    #[error("read theme {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("theme {file}: {source}")]
    Parse { file: String, source: Box<toml::de::Error> },
    #[error(
        "theme {file}: `{role} = \"{text}\"`: {why}; a style looks like \"white on #8f1d2c bold\" \
         (colours: default, #rrggbb, 0–255, black, red, green, yellow, blue, magenta, cyan, white, bright-…; \
         attributes: bold, dim, italic, underline, reverse)"
    )]
    Style { file: String, role: &'static str, text: String, why: String },
    #[error("there is no theme `{name}`; there are {known}")]
    Unknown { name: String, known: String },
}

/// How many colours the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    Sixteen,
    Indexed,
    True,
}

impl Depth {
    /// Judges by `COLORTERM` and `TERM`.
    pub fn of(colorterm: &str, term: &str) -> Self {
        match () {
            () if matches!(colorterm, "truecolor" | "24bit") || term.contains("direct") => Self::True,
            () if term.contains("256color") => Self::Indexed,
            () => Self::Sixteen,
        }
    }
}

const SHIPPED: [(&str, &str); 4] = [
    ("dark", include_str!("../../themes/dark.toml")),
    ("light", include_str!("../../themes/light.toml")),
    ("colour-blind", include_str!("../../themes/colour-blind.toml")),
    ("plain", include_str!("../../themes/plain.toml")),
];

/// All themes in the order `t` cycles through: the shipped ones, then the user's by name.
#[derive(Debug, Clone)]
pub struct Themes {
    all: Vec<Theme>,
    current: usize,
}

impl Themes {
    /// Loads the shipped themes and those in `directory` (`$XDG_CONFIG_HOME/lifeboat/themes`), and picks `name`. A user's
    /// theme replaces a shipped one of the same name. A directory that does not exist holds no themes.
    pub fn load(directory: Option<&Path>, name: &str, depth: Depth) -> Result<Self, ThemeError> {
        let mut all = SHIPPED.iter().map(|(name, source)| Theme::parse(source, name)).collect::<Result<Vec<_>, _>>()?;
        for path in directory.map(theme_files).unwrap_or_default() {
            let source =
                std::fs::read_to_string(&path).map_err(|source| ThemeError::Read { path: path.clone(), source })?;
            let theme = Theme::parse(&source, &path.display().to_string())?;
            match all.iter_mut().find(|known| known.name == theme.name) {
                Some(known) => *known = theme,
                None => all.push(theme),
            }
        }
        for theme in &mut all {
            theme.limit(depth);
        }
        let Some(current) = all.iter().position(|theme| theme.name == name) else {
            let known = all.iter().map(|theme| theme.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(ThemeError::Unknown { name: name.to_owned(), known });
        };
        Ok(Self { all, current })
    }

    /// One theme, without a way to another.
    pub fn only(theme: Theme) -> Self {
        Self { all: vec![theme], current: 0 }
    }

    pub fn current(&self) -> &Theme {
        &self.all[self.current]
    }

    /// The next one. A colourless theme stays: the terminal or the person wants no colour.
    pub fn cycle(&mut self) -> &Theme {
        if !self.current().is_colourless() {
            self.current = (self.current + 1) % self.all.len();
        }
        self.current()
    }
}

fn theme_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

impl Theme {
    /// Reads a theme; `file` names it in messages.
    pub fn parse(source: &str, file: &str) -> Result<Self, ThemeError> {
        let raw: Raw = toml::from_str(source)
            .map_err(|source| ThemeError::Parse { file: file.to_owned(), source: Box::new(source) })?;
        let style = |role: &'static str, text: &str| {
            parse_style(text).map_err(|why| ThemeError::Style {
                file: file.to_owned(),
                role,
                text: text.to_owned(),
                why,
            })
        };
        let styles = &raw.styles;
        Ok(Self {
            base: style("base", &styles.base)?,
            muted: style("muted", &styles.muted)?,
            rule: style("rule", &styles.rule)?,
            strong: style("strong", &styles.strong)?,
            accent: style("accent", &styles.accent)?,
            good: style("good", &styles.good)?,
            warn: style("warn", &styles.warn)?,
            bad: style("bad", &styles.bad)?,
            danger: style("danger", &styles.danger)?,
            selection: style("selection", &styles.selection)?,
            production: style("production", &styles.production)?,
            rehearsal: style("rehearsal", &styles.rehearsal)?,
            name: raw.name,
        })
    }

    /// The shipped theme without colour.
    pub fn plain() -> Self {
        Self::parse(SHIPPED[3].1, "plain").expect("a shipped theme is valid; a test loads them all")
    }

    pub fn is_colourless(&self) -> bool {
        self.styles()
            .iter()
            .all(|(_, style)| [style.fg, style.bg].iter().all(|colour| matches!(colour, None | Some(Color::Reset))))
    }

    /// A key as a person sees it.
    pub fn key(&self) -> Style {
        self.accent.add_modifier(Modifier::BOLD)
    }

    fn styles(&self) -> [(&'static str, Style); 12] {
        [
            ("base", self.base),
            ("muted", self.muted),
            ("rule", self.rule),
            ("strong", self.strong),
            ("accent", self.accent),
            ("good", self.good),
            ("warn", self.warn),
            ("bad", self.bad),
            ("danger", self.danger),
            ("selection", self.selection),
            ("production", self.production),
            ("rehearsal", self.rehearsal),
        ]
    }

    fn limit(&mut self, depth: Depth) {
        for style in [
            &mut self.base,
            &mut self.muted,
            &mut self.rule,
            &mut self.strong,
            &mut self.accent,
            &mut self.good,
            &mut self.warn,
            &mut self.bad,
            &mut self.danger,
            &mut self.selection,
            &mut self.production,
            &mut self.rehearsal,
        ] {
            style.fg = style.fg.map(|colour| limit_colour(colour, depth));
            style.bg = style.bg.map(|colour| limit_colour(colour, depth));
        }
    }
}

fn parse_style(text: &str) -> Result<Style, String> {
    let mut style = Style::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        style = match word {
            "bold" => style.add_modifier(Modifier::BOLD),
            "dim" => style.add_modifier(Modifier::DIM),
            "italic" => style.add_modifier(Modifier::ITALIC),
            "underline" => style.add_modifier(Modifier::UNDERLINED),
            "reverse" => style.add_modifier(Modifier::REVERSED),
            "on" => {
                let colour = words.next().ok_or("`on` wants a colour after it")?;
                style.bg(parse_colour(colour)?)
            }
            colour if style.fg.is_none() => style.fg(parse_colour(colour)?),
            other => return Err(format!("`{other}` is one word too many")),
        };
    }
    Ok(style)
}

const NAMES: [(&str, Color); 17] = [
    ("default", Color::Reset),
    ("black", Color::Black),
    ("red", Color::Red),
    ("green", Color::Green),
    ("yellow", Color::Yellow),
    ("blue", Color::Blue),
    ("magenta", Color::Magenta),
    ("cyan", Color::Cyan),
    ("white", Color::Gray),
    ("bright-black", Color::DarkGray),
    ("bright-red", Color::LightRed),
    ("bright-green", Color::LightGreen),
    ("bright-yellow", Color::LightYellow),
    ("bright-blue", Color::LightBlue),
    ("bright-magenta", Color::LightMagenta),
    ("bright-cyan", Color::LightCyan),
    ("bright-white", Color::White),
];

fn parse_colour(word: &str) -> Result<Color, String> {
    if let Some(hex) = word.strip_prefix('#') {
        let bad = || format!("`{word}` is not a colour");
        if hex.len() != 6 || !hex.is_ascii() {
            return Err(bad());
        }
        let value = u32::from_str_radix(hex, 16).map_err(|_| bad())?;
        return Ok(Color::from_u32(value));
    }
    if let Ok(index) = word.parse::<u8>() {
        return Ok(Color::Indexed(index));
    }
    let known = NAMES.iter().find(|(name, _)| *name == word);
    known.map(|(_, colour)| *colour).ok_or_else(|| format!("`{word}` is neither a colour nor an attribute"))
}

fn limit_colour(colour: Color, depth: Depth) -> Color {
    match (colour, depth) {
        (Color::Rgb(r, g, b), Depth::Indexed) => Color::Indexed(nearest_index([r, g, b])),
        (Color::Rgb(r, g, b), Depth::Sixteen) => nearest_of_sixteen([r, g, b]),
        (other, _) => other,
    }
}

/// The nearest of the 256-colour cube and its greys.
fn nearest_index(rgb: [u8; 3]) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let cube = (16..232u8).map(|index| {
        let n = usize::from(index - 16);
        (index, [LEVELS[n / 36], LEVELS[n / 6 % 6], LEVELS[n % 6]])
    });
    let greys = (232..=255u8).map(|index| (index, [8 + (index - 232) * 10; 3]));
    cube.chain(greys).min_by_key(|(_, other)| distance(rgb, *other)).map_or(7, |(index, _)| index)
}

fn nearest_of_sixteen(rgb: [u8; 3]) -> Color {
    const VALUES: [[u8; 3]; 16] = [
        [0, 0, 0],
        [205, 0, 0],
        [0, 205, 0],
        [205, 205, 0],
        [0, 0, 238],
        [205, 0, 205],
        [0, 205, 205],
        [229, 229, 229],
        [127, 127, 127],
        [255, 0, 0],
        [0, 255, 0],
        [255, 255, 0],
        [92, 92, 255],
        [255, 0, 255],
        [0, 255, 255],
        [255, 255, 255],
    ];
    let nearest = (0..16).min_by_key(|&index| distance(rgb, VALUES[index])).unwrap_or(7);
    NAMES[nearest + 1].1
}

fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests;
