"""The Rust clients, the one that resumes and the thin one, pass what they claim."""

from tests.conformance.playing import conforms

test_rust = conforms("rust")
test_rust_thin = conforms("rust-thin")
