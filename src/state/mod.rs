//! Files of settings to and from plain values; the only room that knows JSON on disk.
