"""Contestants as processes: each does what it is told on standard input, by the protocol of `protocol`."""
