//! The Arrow schema of the traces table.
