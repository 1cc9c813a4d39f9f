"""Reference workers: real handlers to run as they are and to copy from, written only against the `jobwire` client."""
