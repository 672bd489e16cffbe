//! The registry over real files, with one and with several owners.

#[cfg(test)]
mod files;
