//! The text that is counted where there is neither an input nor a repository around: this program's own.

/// Name and text of each document.
pub(crate) const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", include_str!("../README.md")),
    ("args.rs", include_str!("args.rs")),
    ("embedded.rs", include_str!("embedded.rs")),
    ("failure.rs", include_str!("failure.rs")),
    ("input.rs", include_str!("input.rs")),
    ("limits.rs", include_str!("limits.rs")),
    ("main.rs", include_str!("main.rs")),
    ("parts.rs", include_str!("parts.rs")),
    ("report.rs", include_str!("report.rs")),
    ("style.rs", include_str!("style.rs")),
    ("words.rs", include_str!("words.rs")),
];

/// The bytes of document `index`, if there is one.
pub(crate) fn document(index: usize) -> Option<&'static [u8]> {
    DOCUMENTS.get(index).map(|(_, text)| text.as_bytes())
}
