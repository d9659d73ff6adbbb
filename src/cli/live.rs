//! A part of the terminal that is drawn over.

use console::Term;

use super::{error::Error, print};

/// Standard output, if somebody looks at it.
pub(crate) struct Live {
    term: Term,
    lines: usize,
}

impl Live {
    /// Nothing is drawn yet.
    pub(crate) fn new() -> Self {
        Self { term: Term::stdout(), lines: 0 }
    }

    /// Whether there is a terminal to draw on; where there is none, lines are printed instead.
    pub(crate) fn is_terminal(&self) -> bool {
        self.term.is_term()
    }

    /// Lines that fit.
    pub(crate) fn height(&self) -> usize {
        usize::from(self.term.size().0)
    }

    /// Columns that fit.
    pub(crate) fn width(&self) -> usize {
        usize::from(self.term.size().1)
    }

    /// Draws over what was drawn before; what does not fit is cut.
    pub(crate) fn draw(&mut self, text: &str) -> Result<(), Error> {
        let (height, width) = self.term.size();
        // The last line stays free: a full screen scrolls, and then there is nothing to go back to.
        let room = usize::from(height).saturating_sub(1).max(1);
        let lines: Vec<String> = text.lines().take(room).map(|line| print::cut(line, usize::from(width))).collect();
        self.term.clear_last_lines(self.lines).map_err(Error::io("the terminal"))?;
        self.lines = lines.len();
        self.term.write_line(&lines.join("\n")).map_err(Error::io("the terminal"))
    }
}
