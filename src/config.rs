//! What was typed and what stood in the file, and what it means.
