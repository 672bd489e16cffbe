//! How wide and how colourful text is.

/// How a table is laid out. The other formats do not look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderOptions {
    /// Width of the terminal in columns; `None` when there is no terminal, then lines are as long
    /// as they need to be.
    pub width: Option<usize>,
    /// Whether to add colour. Nothing is said by colour alone.
    pub color: bool,
    /// Longest cell in terminal columns; longer ones are cut, and end in three dots.
    pub max_cell: usize,
}

impl Default for RenderOptions {
    /// No terminal, no colour, 120 columns a cell.
    fn default() -> Self {
        Self { width: None, color: false, max_cell: 120 }
    }
}

impl RenderOptions {
    /// Longest nested value in columns: never more than the terminal is wide.
    pub(crate) fn nested_chars(&self) -> usize {
        self.width.map_or(self.max_cell, |width| width.min(self.max_cell))
    }
}
