//! Model families as data and checkpoint files.
