use super::*;

fn shipped(name: &str) -> Theme {
    Themes::load(None, name, Depth::True).unwrap().current().clone()
}

/// Relative luminance and contrast as WCAG 2 defines them.
fn contrast(a: Color, b: Color) -> f64 {
    let luminance = |colour: Color| {
        let Color::Rgb(r, g, b) = colour else { panic!("shipped colours are RGB: {colour:?}") };
        let [r, g, b] = [r, g, b].map(|v| {
            let v = f64::from(v) / 255.0;
            if v <= 0.03928 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn shipped_themes_can_be_read() {
    for name in ["dark", "light", "colour-blind"] {
        let theme = shipped(name);
        for (role, style) in theme.styles() {
            let ground = style.bg.or(theme.base.bg).unwrap();
            let ink = style.fg.or(theme.base.fg).unwrap();
            let wanted = if role == "rule" { 1.2 } else { 4.5 };
            let found = contrast(ink, ground);
            assert!(found >= wanted, "{name}.{role}: contrast {found:.2}, wanted {wanted}");
        }
    }
}

#[test]
fn the_plain_theme_has_no_colour_and_the_others_have() {
    assert!(shipped("plain").is_colourless());
    assert!(!shipped("dark").is_colourless());
}

#[test]
fn signs_that_mean_different_things_look_different() {
    for name in ["dark", "light", "colour-blind"] {
        let theme = shipped(name);
        assert_ne!(theme.good, theme.warn);
        assert_ne!(theme.warn, theme.bad);
        assert_ne!(theme.danger, theme.selection);
        assert_ne!(theme.production, theme.rehearsal);
    }
    let plain = shipped("plain");
    assert_ne!(plain.danger, plain.base);
    assert_ne!(plain.production, plain.rehearsal);
}

#[test]
fn a_bad_theme_says_where_and_what() {
    let good = SHIPPED[0].1;
    let error = Theme::parse(&good.replace("muted =", "mutde ="), "mine.toml").unwrap_err().to_string();
    assert!(error.contains("mine.toml") && error.contains("mutde"), "{error}");
    let line = good.lines().find(|line| line.starts_with("warn =")).unwrap();
    let error = Theme::parse(&good.replace(line, "warn = \"ambr bold\""), "mine.toml").unwrap_err().to_string();
    assert!(error.contains("`ambr` is neither a colour nor an attribute"), "{error}");
    for (text, why) in
        [("red on", "wants a colour"), ("red blue", "`blue` is one word too many"), ("#12345", "not a colour")]
    {
        assert!(parse_style(text).unwrap_err().contains(why), "{text}");
    }
}

#[test]
fn a_users_theme_stands_beside_the_shipped_ones() {
    let directory = tempfile::tempdir().unwrap();
    let mine = SHIPPED[0].1.replace("name = \"dark\"", "name = \"mine\"");
    std::fs::write(directory.path().join("mine.toml"), mine).unwrap();
    let mut themes = Themes::load(Some(directory.path()), "mine", Depth::True).unwrap();
    assert_eq!(themes.current().name, "mine");
    assert_eq!(themes.cycle().name, "dark");
    let error = Themes::load(None, "drak", Depth::True).unwrap_err().to_string();
    assert!(error.contains("dark, light, colour-blind, plain"), "{error}");
}

#[test]
fn colours_shrink_to_what_the_terminal_shows() {
    assert_eq!(limit_colour(Color::Rgb(255, 0, 0), Depth::Indexed), Color::Indexed(196));
    assert_eq!(limit_colour(Color::Rgb(250, 5, 5), Depth::Sixteen), Color::LightRed);
    assert_eq!(Depth::of("", "xterm-256color"), Depth::Indexed);
    assert_eq!(Depth::of("truecolor", "xterm"), Depth::True);
    assert_eq!(Depth::of("", "linux"), Depth::Sixteen);
}
