//! Hosts: frontend and backend, the service proc, and the border to whatever makes procs real.
