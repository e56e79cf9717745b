//! Tables. Columns state their rank: the lesser ones go where there is no room, and where there is very little, rows become cards.
//!
//! Classes, labels and roles come from [`Column`], so that no page can get them wrong. The roles are spelt out because cards take a table's
//! meaning away in some browsers.

use maud::{Markup, html};

/// A column of a table. The first one of a table names the thing of the row.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    label: &'a str,
    class: &'static str,
    /// Whether its label is repeated in a card, where there is no heading.
    is_labelled: bool,
}

impl<'a> Column<'a> {
    /// Text, which a card shows on its second line after the label: `Last seen 4 min ago`.
    #[must_use]
    pub const fn text(label: &'a str) -> Self {
        Self { label, class: "", is_labelled: true }
    }

    /// Text that needs no label in a card, as it speaks for itself.
    #[must_use]
    pub const fn plain(label: &'a str) -> Self {
        Self { label, class: "", is_labelled: false }
    }

    /// A number: on the right.
    #[must_use]
    pub const fn number(label: &'a str) -> Self {
        Self { label, class: "num", is_labelled: true }
    }

    /// The state, which a card shows beside the name.
    #[must_use]
    pub const fn state(label: &'a str) -> Self {
        Self { label, class: "top", is_labelled: false }
    }

    /// What can be done from the list, which is always in sight.
    #[must_use]
    pub const fn action() -> Self {
        Self { label: "", class: "act", is_labelled: false }
    }

    /// Goes where the table is narrower than 40rem.
    #[must_use]
    pub const fn third(self) -> Self {
        Self { class: if self.class.len() == 3 { "num c3" } else { "c3" }, ..self }
    }

    /// Goes where the table is narrower than 58rem.
    #[must_use]
    pub const fn fourth(self) -> Self {
        Self { class: if self.class.len() == 3 { "num c4" } else { "c4" }, ..self }
    }

    fn heading(&self) -> Markup {
        let class = self.class.replace("top", "");
        let class = Some(class.trim()).filter(|class| !class.is_empty());
        html! {
            th class=[class] role="columnheader" scope="col" {
                @if self.label.is_empty() { span.hidden { "Action" } } @else { (self.label) }
            }
        }
    }

    fn cell(&self, content: &Markup) -> Markup {
        let label = self.is_labelled.then_some(self.label);
        let class = Some(self.class).filter(|class| !class.is_empty());
        html! { td class=[class] role="cell" data-l=[label] { (content) } }
    }
}

/// A table. Each row has a cell for each column.
#[must_use]
pub fn table(caption: &str, columns: &[Column<'_>], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.tbl {
            table role="table" {
                caption { (caption) }
                thead role="rowgroup" { tr role="row" { @for column in columns { (column.heading()) } } }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" {
                            @for (at, (column, cell)) in columns.iter().zip(row).enumerate() {
                                @if at == 0 { th role="rowheader" scope="row" { (cell) } } @else { (column.cell(cell)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<'static>; 5] = [
        Column::plain("Name"),
        Column::text("Tokens").fourth(),
        Column::number("Size").third(),
        Column::state("State"),
        Column::action(),
    ];

    #[test]
    fn a_column_decides_what_its_cells_are() {
        let cell = |text: &str| html! { (text) };
        let shown = table("Services", &COLUMNS, &[["<mcr>", "2", "7", "Up", "End"].map(cell).to_vec()]).0;
        for part in [
            r#"<caption>Services</caption>"#,
            r#"<th class="c4" role="columnheader" scope="col">Tokens</th>"#,
            r#"<th role="columnheader" scope="col">State</th>"#,
            r#"<th role="rowheader" scope="row">&lt;mcr&gt;</th>"#,
            r#"<td class="c4" role="cell" data-l="Tokens">2</td>"#,
            r#"<td class="num c3" role="cell" data-l="Size">7</td>"#,
            r#"<td class="top" role="cell">Up</td>"#,
            r#"<td class="act" role="cell">End</td>"#,
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!shown.contains("style="), "{shown}");
    }

    #[test]
    fn an_absent_value_is_an_empty_cell() {
        // Cards leave it out, with its label.
        let shown = table("Services", &COLUMNS[..2], &[vec![html! { "mcr" }, html! {}]]).0;
        assert!(shown.contains(r#"data-l="Tokens"></td>"#), "{shown}");
    }
}
