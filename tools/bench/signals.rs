//! Ctrl-C and SIGTERM for a run by itself: the first ends it early, and it tells what it measured so
//! far; the second ends the process at once.

use crate::Outcome;
use crate::bed::EXIT_SIGNAL;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What a run that was ended so is void for: a script shall not take it for a whole one.
pub const VOID: &str = "ended by a signal: this is a part of the run that was asked for";

static TOLD: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on the first signal ends nothing by itself.
pub fn listen() -> Outcome<()> {
    let told = TOLD.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal meets a flag that is not set yet.
        flag::register_conditional_shutdown(signal, EXIT_SIGNAL, told.clone())?;
        flag::register(signal, told.clone())?;
    }
    Ok(())
}

/// Whether a signal came, and everything shall come to its end.
pub fn is_told() -> bool {
    TOLD.get().is_some_and(|told| told.load(Ordering::Relaxed))
}
