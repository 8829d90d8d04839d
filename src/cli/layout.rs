//! Text that fits the terminal: wrapped sentences and tables. What can't be seen or would change what
//! a terminal shows is replaced here, so that no other part of the command line has to.

use anstyle::Style;
use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

use super::{Failure, print_line};
use crate::model::text::sanitize;

/// Columns of the terminal that standard output is, else of a page.
pub(super) fn width() -> usize {
    match terminal_size_of(std::io::stdout()) {
        Some((Width(columns), _)) if columns > 0 => usize::from(columns),
        _ => WIDTH_OF_A_PAGE,
    }
}

/// Prints a label and a text as [`wrap`] breaks them; `style` is the label's.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn print_labelled(
    indent: usize,
    label: &str,
    style: Style,
    text: &str,
) -> Result<(), Failure> {
    let hang = if label.is_empty() { 0 } else { HANG };
    let gap = if label.is_empty() || text.is_empty() { "" } else { " " };
    let room = width().saturating_sub(indent + hang).max(MIN_WIDTH);
    for (number, line) in wrap(&format!("{label}{gap}{text}"), room).iter().enumerate() {
        let line = line.trim_end();
        match line.strip_prefix(label).filter(|_| number == 0) {
            Some(rest) => print_line(&format!("{:indent$}{style}{label}{style:#}{rest}", ""))?,
            None => print_line(&format!("{:1$}{line}", "", indent + hang))?,
        }
    }
    Ok(())
}

/// Prints a text as [`wrap`] breaks it, indented; nothing of an empty one.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn print_text(indent: usize, text: &str) -> Result<(), Failure> {
    if text.is_empty() { Ok(()) } else { print_labelled(indent, "", Style::new(), text) }
}

/// The lines of a text. Breaks between words only: a URL that is longer than a line stays in one piece,
/// so that it can be copied.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let text = sanitize(paragraph, usize::MAX);
        let indent = " ".repeat(text.len() - text.trim_start_matches(' ').len());
        let room = width.saturating_sub(indent.len());
        let mut line = String::new();
        for word in text.trim_start_matches(' ').split(' ') {
            if !line.is_empty() && line.width() + 1 + word.width() > room {
                lines.push(format!("{indent}{}", std::mem::take(&mut line)));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(format!("{indent}{line}"));
    }
    lines
}

/// Rows below a header, with columns as wide as their widest cell.
pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self(vec![header.iter().map(|&name| name.to_owned()).collect()])
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.into_iter().map(|cell| sanitize(&cell, usize::MAX)).collect());
    }

    /// Prints the table at most this wide; 0: as wide as it is.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub(super) fn print(&self, width: usize) -> Result<(), Failure> {
        self.lines(width).iter().try_for_each(|line| print_line(line))
    }

    /// Where the table is too wide, its widest columns become narrower and break their cells.
    fn lines(&self, width: usize) -> Vec<String> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let of_column = |column: usize| self.0.iter().filter_map(move |row| row.get(column));
        let widest = |column| of_column(column).map(|cell| cell.width()).max().unwrap_or_default();
        let mut widths: Vec<usize> = (0..columns).map(widest).collect();
        let all = widths.iter().sum::<usize>() + SPACE * columns.saturating_sub(1);
        let excess = if width == 0 { 0 } else { all.saturating_sub(width) };
        for _ in 0..excess {
            match widths.iter_mut().max() {
                Some(widest) if *widest > MIN_COLUMN => *widest -= 1,
                _ => break,
            }
        }
        let mut lines = Vec::new();
        for row in &self.0 {
            let cells: Vec<Vec<String>> =
                row.iter().zip(&widths).map(|(cell, width)| break_cell(cell, *width)).collect();
            for number in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
                let mut line = String::new();
                for (cell, width) in cells.iter().zip(&widths) {
                    let text = cell.get(number).map_or("", String::as_str);
                    line.push_str(text);
                    line.extend(std::iter::repeat_n(
                        ' ',
                        (width + SPACE).saturating_sub(text.width()),
                    ));
                }
                lines.push(line.trim_end().to_owned());
            }
        }
        lines
    }
}

/// [`wrap`] that breaks words which are too long, too: a cell must not reach into the next column.
fn break_cell(cell: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in wrap(cell, width) {
        let mut piece = String::new();
        for c in line.chars() {
            piece.push(c);
            if piece.width() > width && piece.chars().count() > 1 {
                piece.pop();
                lines.push(std::mem::replace(&mut piece, c.to_string()));
            }
        }
        lines.push(piece);
    }
    lines
}

/// By how much the lines after the first one of a labelled text are indented further.
const HANG: usize = 2;
/// Where standard output isn't a terminal.
const WIDTH_OF_A_PAGE: usize = 100;
/// A narrower text is harder to read than one that the terminal breaks.
const MIN_WIDTH: usize = 20;
const MIN_COLUMN: usize = 8;
/// Between columns.
const SPACE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_between_words() {
        for (text, width, expected) in [
            ("", 10, &[][..]),
            ("one two three", 7, &["one two", "three"]),
            ("see https://idp.example/a/b now", 10, &["see", "https://idp.example/a/b", "now"]),
            ("  one two", 6, &["  one", "  two"]),
            ("a    b", 80, &["a    b"]),
            ("one\ntwo", 80, &["one", "two"]),
            ("日本語 日本語", 8, &["日本語", "日本語"]),
            ("a\u{1b}[31mb", 80, &["a\u{fffd}[31mb"]),
        ] {
            assert_eq!(wrap(text, width), expected, "{text:?}");
        }
    }

    #[test]
    fn a_table_fits_its_width() {
        let mut table = Table::new(&["SLUG", "IDP", "CHECK"]);
        table.row(["acme".to_owned(), "idp.acme.example/realms/people".to_owned(), "PASS".into()]);
        assert_eq!(table.lines(0)[1], "acme  idp.acme.example/realms/people  PASS");
        let lines = [
            "SLUG  IDP                CHECK",
            "acme  idp.acme.example/  PASS",
            "      realms/people",
        ];
        assert_eq!(table.lines(30), lines);
        assert!(table.lines(30).iter().all(|line| line.width() <= 30), "{:?}", table.lines(30));
        assert!(table.lines(5)[1].starts_with("acme  idp.acme  PASS"), "not below 8");
    }
}
