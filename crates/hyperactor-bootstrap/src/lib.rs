//! Procs as operating-system processes: the socket directory, LocalProcDialer, starting, watching and ending children.
