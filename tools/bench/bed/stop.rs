//! Ctrl-C and SIGTERM: every wait of a comparison asks here whether it shall end.

use crate::{Outcome, fail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From here on the signals end nothing by themselves.
    pub fn listen() -> Outcome<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(Stop(flag))
    }

    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn check(&self) -> Outcome<()> {
        if self.is_wanted() {
            return fail("ended by a signal");
        }
        Ok(())
    }

    /// Asks `done` until it has an answer; None when the time is up.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut done: impl FnMut() -> Outcome<Option<T>>,
    ) -> Outcome<Option<T>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(answer) = done()? {
                return Ok(Some(answer));
            }
            self.check()?;
            if end < Instant::now() {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }
}
