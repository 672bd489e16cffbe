//! Why a run cannot go on.

use std::io;
use std::path::PathBuf;

/// What ends a run before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The target is not a URL that this program speaks.
    #[error("`{url}` is not of the form http://HOST:PORT[/PATH]")]
    Url {
        /// As given.
        url: String,
    },
    /// An option contradicts another.
    #[error("{0}")]
    Options(&'static str),
    /// Nobody listens, or the connection broke and did not come back in time.
    #[error("connection to `{authority}`")]
    Connection {
        /// Host and port.
        authority: String,
        /// What the system says.
        source: io::Error,
    },
    /// The service answered what sending again cannot mend.
    #[error("`{authority}` answered {status}: {body}")]
    Refused {
        /// Host and port.
        authority: String,
        /// Status of HTTP.
        status: u16,
        /// Beginning of the answer.
        body: String,
    },
    /// A file of results could not be written.
    #[error("write `{}`", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Standard output is closed.
    #[error("write the report")]
    Report(#[source] io::Error),
    /// A thread of the generator died.
    #[error("a connection's thread ended in a panic")]
    Thread,
}

impl LoadError {
    /// What the user may do.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Url { .. } => "such as http://127.0.0.1:5000",
            Self::Options(_) => "see tracelake-loadgen --help",
            Self::Connection { .. } => {
                "is the service running? `tracelake serve` prints its address"
            }
            Self::Refused { .. } => "MLflow needs --header 'x-mlflow-experiment-id: 0'",
            Self::File { .. } => "is there room, and may the file be written?",
            Self::Report(_) => "standard output must stay open until the end",
            Self::Thread => "this is a defect of the generator",
        }
    }
}
