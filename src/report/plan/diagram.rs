//! Systems, where their backups go, and where they are restored: as geometry for an SVG, and as a Mermaid block.

use serde::Serialize;

use super::super::words::clean;
use crate::inventory::Inventory;

/// Sizes are in the units of the SVG's view box.
#[derive(Debug, Serialize)]
pub struct Diagram {
    pub width: f64,
    pub height: f64,
    /// The same in words.
    pub alternative: String,
    pub boxes: Vec<Box>,
    pub arrows: Vec<Arrow>,
    #[serde(skip)]
    links: Vec<Link>,
}

#[derive(Debug, Serialize)]
pub struct Box {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    /// `system`, `store`, `restored`
    pub class: &'static str,
    pub title: String,
    pub lines: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Arrow {
    pub from: (f64, f64),
    pub to: (f64, f64),
    pub label: String,
    pub restores: bool,
}

#[derive(Debug)]
struct Link {
    system: String,
    kind: &'static str,
    store: String,
    folder: String,
    directory: String,
}

const WIDTH: f64 = 920.0;
const BOX: f64 = 240.0;
const HEIGHT: f64 = 62.0;
const STEP: f64 = 86.0;
const TOP: f64 = 34.0;

pub fn of(inventory: &Inventory) -> Diagram {
    let links: Vec<Link> = inventory
        .systems
        .values()
        .map(|system| Link {
            system: clean(&system.name),
            kind: system.kind().word(),
            store: clean(&system.backups.store),
            folder: clean(&system.backups.prefix),
            directory: clean(&super::restored_to(system)),
        })
        .collect();
    let rows = links.len().max(inventory.stores.len()).max(1);
    // The shorter column stands in the middle of the longer one.
    let y = |index: usize, count: usize| TOP + STEP * (index as f64 + (rows - count) as f64 / 2.0);
    let (left, middle, right) = (0.0, (WIDTH - BOX) / 2.0, WIDTH - BOX);
    let mut boxes = Vec::new();
    let mut arrows = Vec::new();
    for (index, store) in inventory.stores.values().enumerate() {
        let retained = store.retain.map(|kept| format!("kept {}", super::lasting(kept)));
        boxes.push(Box {
            x: middle,
            y: y(index, inventory.stores.len()),
            width: BOX,
            height: HEIGHT,
            class: "store",
            title: shorten(&clean(&store.name), 26),
            lines: std::iter::once(shorten(&clean(&store.url), 30)).chain(retained).collect(),
        });
    }
    for (index, (link, system)) in links.iter().zip(inventory.systems.values()).enumerate() {
        let at = y(index, links.len());
        boxes.push(Box {
            x: left,
            y: at,
            width: BOX,
            height: HEIGHT,
            class: "system",
            title: shorten(&link.system, 26),
            lines: vec![format!("{} · {}", link.kind, shorten(&clean(&system.environment), 20))],
        });
        boxes.push(Box {
            x: right,
            y: at,
            width: BOX,
            height: HEIGHT,
            class: "restored",
            title: shorten(&format!("{} restored", link.system), 26),
            lines: vec![shorten(&link.directory, 34)],
        });
        let Some(place) = inventory.stores.keys().position(|name| *name == system.backups.store) else { continue };
        let store = y(place, inventory.stores.len()) + HEIGHT / 2.0;
        let middle_of = at + HEIGHT / 2.0;
        let label = if system.kind().word() == "postgres" { "base, WAL" } else { "RDB, AOF" };
        arrows.push(Arrow {
            from: (left + BOX, middle_of),
            to: (middle, store),
            label: label.to_owned(),
            restores: false,
        });
        arrows.push(Arrow {
            from: (middle + BOX, store),
            to: (right, middle_of),
            label: "restore".to_owned(),
            restores: true,
        });
    }
    let sentence = |link: &Link| {
        format!(
            "{} ({}) is backed up into {}, folder {}, and restored into {}.",
            link.system, link.kind, link.store, link.folder, link.directory
        )
    };
    Diagram {
        width: WIDTH,
        height: TOP + STEP * rows as f64,
        alternative: links.iter().map(sentence).collect::<Vec<_>>().join(" "),
        boxes,
        arrows,
        links,
    }
}

impl Diagram {
    /// A Mermaid flow chart, without its fence.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        let mut stores: Vec<&str> = self.links.iter().map(|link| link.store.as_str()).collect();
        stores.sort_unstable();
        stores.dedup();
        for (index, store) in stores.iter().enumerate() {
            text += &format!("  store{index}[(\"{}\")]\n", label(store));
        }
        for (index, link) in self.links.iter().enumerate() {
            let store = stores.iter().position(|store| *store == link.store).unwrap_or_default();
            text += &format!(
                "  system{index}[\"{} ({})\"] -- \"{}\" --> store{store}\n  store{store} -. restore .-> restored{index}[\"{}\"]\n",
                label(&link.system),
                link.kind,
                label(&link.folder),
                label(&link.directory)
            );
        }
        text
    }
}

/// Inside quotation marks of Mermaid, which takes entities.
fn label(text: &str) -> String {
    let one = |c: char| match c {
        c if c.is_alphanumeric() || " -_./:@".contains(c) => c.to_string(),
        c if c.is_whitespace() => " ".to_owned(),
        c => format!("#{};", u32::from(c)),
    };
    text.chars().map(one).collect()
}

fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}
