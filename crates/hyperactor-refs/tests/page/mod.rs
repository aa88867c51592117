//! Reads the tables and the grammar of a page in Markdown. It knows as much of Markdown as that page uses.

/// What the tests take from a page.
pub(crate) struct Page {
    /// The rows of all tables whose first header is bold.
    pub(crate) rows: Vec<Row>,
    /// The names of all rules in blocks of EBNF.
    pub(crate) rules: Vec<String>,
}

/// A row of a table.
pub(crate) struct Row {
    /// The headers of its table, without the stars.
    pub(crate) headers: Vec<String>,
    /// Its cells, without the backticks; what is in backticks is as it stands there, with its spaces.
    pub(crate) cells: Vec<String>,
}

impl Page {
    /// Reads the page on addresses.
    pub(crate) fn read() -> Self {
        Self::parse(include_str!("../../../../docs/spec/address.md"))
    }

    fn parse(text: &str) -> Self {
        let mut page = Self {
            rows: Vec::new(),
            rules: Vec::new(),
        };
        let mut headers: Option<Vec<String>> = None;
        let mut in_grammar = false;
        for line in text.lines() {
            if line.starts_with("```") {
                in_grammar = line == "```ebnf";
            } else if in_grammar {
                let name = line.split_once(" = ").map(|(name, _)| name.trim());
                page.rules
                    .extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
            } else if !line.starts_with('|') {
                headers = None;
            } else if let Some(headers) = &headers {
                let cells = cells(line);
                if !line.starts_with("|-") && headers[0].starts_with("**") {
                    let headers = headers.iter().map(|cell| cell.replace("**", "")).collect();
                    page.rows.push(Row {
                        headers,
                        cells: cells.iter().map(|cell| code(cell)).collect(),
                    });
                }
            } else {
                headers = Some(cells(line));
            }
        }
        page
    }
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

fn code(cell: &str) -> String {
    let inner = cell
        .strip_prefix('`')
        .and_then(|cell| cell.strip_suffix('`'));
    inner.unwrap_or(cell).to_owned()
}
