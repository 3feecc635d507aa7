//! Why the broker could not start, in words that say what to do about it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Ends the start with exit code 2.
#[derive(Debug)]
pub struct StartError {
    /// What was being done, as it reads behind "cannot": `open the log in`.
    pub doing: Cow<'static, str>,
    /// To what: a path, an address, a key with its value.
    pub what: String,
    /// What stood in the way.
    pub cause: Box<dyn Error + Send + Sync>,
    /// What the reader can do.
    pub remedy: String,
}

impl StartError {
    /// All four parts; a text is a cause too.
    pub fn new(
        doing: impl Into<Cow<'static, str>>,
        what: impl fmt::Display,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            doing: doing.into(),
            what: what.to_string(),
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot {}", self.doing)?;
        if !self.what.is_empty() {
            write!(out, " {}", self.what)?;
        }
        write!(out, ": {}; {}", self.cause, self.remedy)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_one_sentence_and_keeps_its_cause() {
        let denied = std::io::Error::from_raw_os_error(13);
        let error = StartError::new("open the log in", "/data/0", denied, "run as its owner");
        assert_eq!(
            error.to_string(),
            "cannot open the log in /data/0: Permission denied (os error 13); run as its owner"
        );
        assert!(
            error
                .source()
                .is_some_and(|cause| cause.is::<std::io::Error>())
        );
    }
}
