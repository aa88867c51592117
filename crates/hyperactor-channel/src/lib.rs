//! Typed channels between processes: Tx and Rx over in-process, Unix and TCP transports.
