//! The registry over real files, with one and with several owners, and what its calls ask for.

#[cfg(test)]
mod backup;
#[cfg(test)]
mod files;
#[cfg(test)]
mod moves;
