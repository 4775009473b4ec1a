//! The runbook, as a page: what to do about each error code and each alert.
//!
//! In: `docs/runbook.md`. Out: a page of plain HTML with an anchor for each section, and for each
//! error code the URL of its section, which is the `type` of the problem details. Nothing can fail.

use std::fmt::Write as _;

/// The text of the page.
pub const TEXT: &str = include_str!("../../docs/runbook.md");
/// Where a port serves the page.
pub const PATH: &str = "/docs/runbook";

/// The URL of a section, relative to the port: the name of the section is an error code or an
/// alert.
pub fn section(name: &str) -> String {
    format!("{PATH}#{}", name.to_lowercase())
}

/// The sections that are about an alert or an error code: the name and the text of each.
pub fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sections = TEXT.split("\n## ").skip(1);
    sections.map(|section| section.split_once('\n').unwrap_or((section, "")))
}

/// The page. It shows the text as it is, and headings as anchors.
pub fn page() -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Gridwatch: runbook</title>\n\
         <link rel=\"stylesheet\" href=\"style.css\"></head><body><main>\n",
    );
    let mut is_open = false;
    for line in TEXT.lines() {
        let escaped = line.replace('&', "&amp;").replace('<', "&lt;");
        let level = line.bytes().take_while(|&byte| byte == b'#').count();
        // Writing to a String cannot fail.
        if level > 0 {
            if std::mem::take(&mut is_open) {
                page.push_str("</pre>\n");
            }
            let title = escaped[level..].trim();
            let anchor = title.to_lowercase();
            let _ = writeln!(page, "<h{level} id=\"{anchor}\">{title}</h{level}>");
        } else if is_open || !line.is_empty() {
            if !std::mem::replace(&mut is_open, true) {
                page.push_str("<pre>");
            }
            let _ = writeln!(page, "{escaped}");
        }
    }
    if is_open {
        page.push_str("</pre>\n");
    }
    page.push_str("</main></body></html>\n");
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api_error::CODES;

    const PARTS: [&str; 4] = ["Means", "Look at", "Do", "It worked when"];

    #[test]
    fn every_error_code_has_a_section_and_every_section_has_its_parts() {
        let names: BTreeSet<&str> = sections().map(|(name, _)| name).collect();
        for code in CODES {
            assert!(
                names.contains(code),
                "docs/runbook.md: add a section '## {code}'"
            );
        }
        for (name, text) in sections() {
            for part in PARTS {
                let begin = format!("- **{part}**: ");
                assert_eq!(
                    text.matches(&begin).count(),
                    1,
                    "docs/runbook.md: the section {name} needs one line '{begin}…'"
                );
            }
        }
    }

    #[test]
    fn the_type_of_every_error_is_an_anchor_of_the_page() {
        let page = page();
        for code in CODES {
            let (path, anchor) = section(code).split_once('#').map_or_else(
                || panic!("no anchor"),
                |(path, anchor)| (path.to_owned(), anchor.to_owned()),
            );
            assert_eq!(path, PATH);
            assert_eq!(
                page.matches(&format!(" id=\"{anchor}\"")).count(),
                1,
                "{anchor}"
            );
        }
        assert_eq!(
            page.matches("<pre>").count(),
            page.matches("</pre>").count()
        );
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn links_within_the_runbook_lead_to_a_section() {
        let names: BTreeSet<String> = sections().map(|(name, _)| name.to_lowercase()).collect();
        for link in TEXT.split("](#").skip(1) {
            let anchor = link.split(')').next().unwrap_or_default();
            assert!(names.contains(anchor), "docs/runbook.md links to #{anchor}");
        }
    }
}
