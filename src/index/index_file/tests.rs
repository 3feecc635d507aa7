//! IndexFiles
