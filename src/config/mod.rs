//! What was set, where, and what it means: `broker.conf`, the command line, and the defaults.
//!
//! [`load`] is a pure function of the three, so every message about a mistake is a test.

mod accepted;
mod address;
mod demands;
mod host;
pub mod keys;
mod kinds;
mod properties;
mod resolve;
mod settings;
mod start_error;
mod values;

use std::path::Path;

pub use host::Host;
pub use settings::{
    Addresses, AppendMode, Egress, Flush, FlushMethod, FlushMode, Messages, NameServerSettings,
    NameServers, Paths, Ports, Pulls, Retention, Scheduling, Settings, Store,
};
pub use start_error::StartError;
pub use values::{Entry, Note, Origin};

use values::Values;

/// A setting of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As it was typed, e.g. `--port`.
    pub flag: String,
    /// The key it sets.
    pub key: String,
    /// To what.
    pub value: String,
}

/// Works out what is in force. The file is named for its messages; its bytes were read by the caller.
pub fn load(
    file: Option<(&Path, &[u8])>,
    flags: &[Flag],
    host: &Host,
) -> Result<Settings, StartError> {
    let mut values = Values::default();
    if let Some((path, bytes)) = file {
        values.read_file(path, bytes)?;
    }
    values.read_flags(flags)?;
    resolve::resolve(values, host)
}

/// Works out what is in force for a name server alone, which has no file.
pub fn load_name_server(flags: &[Flag]) -> Result<NameServerSettings, StartError> {
    let mut values = Values::default();
    values.read_flags(flags)?;
    resolve::resolve_name_server(&values)
}
