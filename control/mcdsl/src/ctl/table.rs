//! Tables that fit the screen.
//!
//! Where the screen is too narrow, long texts are shortened first (`…`), then columns that have a rank are dropped,
//! those with the highest rank first. Each table gives a rank to those that its reader can do without; the others stay,
//! and are shortened further. Without a screen (a file, a pipe) nothing is shortened or dropped.

use std::iter;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::screen::{Screen, in_colour};
use crate::terminal::clean;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    kind: Kind,
    /// 0: the column is always there.
    rank: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Exact,
    Number,
    State,
}

impl Column {
    /// Text that may be shortened.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text, rank: 0 }
    }

    /// Text that is useless when shortened: an id, a time.
    #[must_use]
    pub const fn exact(name: &'static str) -> Self {
        Self { name, kind: Kind::Exact, rank: 0 }
    }

    /// A number, aligned to the right.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self { name, kind: Kind::Number, rank: 0 }
    }

    /// A state word, in its colour.
    #[must_use]
    pub const fn state(name: &'static str) -> Self {
        Self { name, kind: Kind::State, rank: 0 }
    }

    /// Lets the column be dropped on narrow screens. The highest rank is dropped first.
    #[must_use]
    pub const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    /// The narrowest that a shortened text may be while columns can still be dropped.
    fn min_width(&self, natural: usize) -> usize {
        const MIN_TEXT: usize = 10;
        if self.kind == Kind::Text { natural.min(MIN_TEXT).max(self.name.width()) } else { natural }
    }

    /// The narrowest that it may be while texts can still be shortened: what is useless when shortened stays.
    fn least_width(&self, natural: usize) -> usize {
        const LEAST_TEXT: usize = 4;
        if self.kind == Kind::Text { natural.min(LEAST_TEXT) } else { natural }
    }
}

/// Space between columns.
const GAP: usize = 2;

/// Renders rows of as many cells as there are columns.
pub(super) fn render(columns: &[Column], rows: &[Vec<String>], screen: &Screen) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let natural = |index: usize| {
        let cells = rows.iter().map(|row| row[index].width());
        cells.chain([columns[index].name.width()]).max().unwrap_or(0)
    };
    let naturals: Vec<usize> = (0..columns.len()).map(natural).collect();
    let (shown, widths) = fit(columns, &naturals, screen.width);
    let line = |cells: &[&str], colour: bool| {
        let mut line = String::new();
        for (position, (&index, &width)) in shown.iter().zip(&widths).enumerate() {
            let cell = shorten(cells[index], width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let is_last = position + 1 == shown.len();
            let cell = if colour && columns[index].kind == Kind::State { in_colour(&cell) } else { cell };
            if columns[index].kind == Kind::Number {
                line.extend([padding.as_str(), cell.as_str()]);
            } else {
                line.extend([cell.as_str(), if is_last { "" } else { padding.as_str() }]);
            }
            if !is_last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let mut text = line(&names, false);
    text.extend(
        rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>(), screen.colour)),
    );
    let hidden: Vec<_> =
        (0..columns.len()).filter(|index| !shown.contains(index)).map(|index| names[index]).collect();
    if let Some(width) = screen.width.filter(|_| !hidden.is_empty()) {
        let note = format!("(not shown: {}; see --output json)", hidden.join(", "));
        text.push_str(&shorten(&note, width));
        text.push('\n');
    }
    text
}

/// Which columns are shown, and their widths.
fn fit(columns: &[Column], naturals: &[usize], width: Option<usize>) -> (Vec<usize>, Vec<usize>) {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else { return (shown, naturals.to_vec()) };
    let min = |index: &usize| columns[*index].min_width(naturals[*index]);
    let gaps = |shown: &[usize]| GAP * shown.len().saturating_sub(1);
    while shown.iter().map(min).sum::<usize>() + gaps(&shown) > width {
        let droppable = shown.iter().enumerate().filter(|(_, index)| columns[**index].rank > 0);
        let Some((position, _)) = droppable.max_by_key(|(_, index)| columns[**index].rank) else { break };
        shown.remove(position);
    }
    let mut widths: Vec<usize> = shown.iter().map(|index| naturals[*index]).collect();
    let mins: Vec<usize> = shown.iter().map(min).collect();
    let available = width.saturating_sub(gaps(&shown));
    let least = shown.iter().map(|index| columns[*index].least_width(naturals[*index])).collect();
    // Down to the minimum first, the least important columns before others; then texts; if that is not enough, anything.
    for floor in [mins, least, vec![1; shown.len()]] {
        while widths.iter().sum::<usize>() > available {
            let shrinkable = (0..widths.len()).filter(|&position| widths[position] > floor[position]);
            let order = |&position: &usize| (columns[shown[position]].rank, widths[position]);
            let Some(next) = shrinkable.max_by_key(order) else { break };
            widths[next] -= 1;
        }
    }
    (shown, widths)
}

/// A text of at most `width` columns; what was cut ends in `…`.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let kept = text.chars().take_while(|character| {
        used += character.width().unwrap_or(0);
        used <= width
    });
    kept.chain(iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [
        Column::text("NAME"),
        Column::state("STATE"),
        Column::exact("CREATED").rank(1),
        Column::text("DETAIL").rank(3),
        Column::number("COUNT").rank(2),
    ];

    fn row(name: &str, state: &str, detail: &str) -> Vec<String> {
        [name, state, "2026-11-30 09:13", detail, "7"].map(str::to_owned).to_vec()
    }

    fn on(width: usize) -> Screen {
        Screen { width: Some(width), ..Screen::default() }
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let rows = [
            row("ada", "active", "short"),
            row(&"日本語".repeat(20), "disabled", &"long text ".repeat(20)),
            row("e\u{301}clair 🦀", "a state that is no single word", ""),
        ];
        for width in 1..140 {
            let text = render(&COLUMNS, &rows, &on(width));
            for line in text.lines() {
                // The columns of rank 0 need a character each and a gap.
                assert!(line.width() <= width.max(4), "{width}: {} {line:?}", line.width());
            }
        }
    }

    #[test]
    fn at_80_columns_the_text_is_shortened_before_a_column_is_dropped() {
        let rows = [row("日本の長い名前のアカウント", "active", &"x".repeat(60))];
        let text = render(&COLUMNS, &rows, &on(80));
        let expect = "\
NAME                        STATE   CREATED           DETAIL               COUNT
日本の長い名前のアカウント  active  2026-11-30 09:13  xxxxxxxxxxxxxxxxxx…      7
";
        assert_eq!(text, expect);
        let text = render(&COLUMNS, &rows, &on(50));
        let expect = "\
NAME               STATE   CREATED           COUNT
日本の長い名前の…  active  2026-11-30 09:13      7
(not shown: DETAIL; see --output json)
";
        assert_eq!(text, expect);
        let text = render(&COLUMNS, &rows, &on(20));
        assert_eq!(text, "NAME          STATE\n日本の長い…   active\n(not shown: CREATED…\n");
    }

    #[test]
    fn what_is_exact_stays_longer_than_texts() {
        let columns = [Column::exact("ID"), Column::text("A"), Column::text("B")];
        let rows = [["0123456789", "a long text", "another long text"].map(str::to_owned).to_vec()];
        let text = render(&columns, &rows, &on(24));
        assert_eq!(text, "ID          A      B\n0123456789  a lo…  anot…\n");
        let text = render(&columns, &rows, &on(15));
        assert!(text.lines().all(|line| line.width() <= 15) && text.contains("a l…"), "{text}");
    }

    #[test]
    fn without_a_screen_nothing_is_shortened() {
        let rows = [row(&"n".repeat(200), "active", &"d".repeat(200))];
        let text = render(&COLUMNS, &rows, &Screen::default());
        assert!(text.contains(&"n".repeat(200)) && text.contains(&"d".repeat(200)), "{text}");
    }

    #[test]
    fn colours_do_not_change_the_alignment() {
        let rows = [row("ada", "active", "x"), row("bob", "disabled", "x")];
        let colour = Screen { colour: true, ..on(80) };
        let coloured = render(&COLUMNS, &rows, &colour);
        assert!(coloured.contains("\x1b[32mactive\x1b[0m"), "{coloured:?}");
        let stripped =
            ["\x1b[32m", "\x1b[2m", "\x1b[0m"].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(stripped, render(&COLUMNS, &rows, &on(80)));
    }

    #[test]
    fn control_characters_in_cells_are_escaped() {
        let rows = [row("a\x1b[2J", "active", "b\nc")];
        let text = render(&COLUMNS, &rows, &on(100));
        assert!(text.contains("a\\u{1b}[2J") && text.contains("b\\nc"), "{text}");
    }
}
