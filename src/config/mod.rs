//! What was set, where, and what it means.
