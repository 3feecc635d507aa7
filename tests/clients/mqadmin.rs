//! Apache's mqadmin: each command of the issue ends well and prints what it should.
