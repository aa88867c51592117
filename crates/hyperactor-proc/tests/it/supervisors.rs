//! What a supervisor does beyond its table of cases: order, deadlines, the wait before a restart, its own end.
