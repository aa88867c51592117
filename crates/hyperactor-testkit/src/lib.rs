//! For tests: probes, a message ledger, a byte-exact chaos proxy and leak guards.
