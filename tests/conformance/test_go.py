"""The Go clients, the one that resumes and the thin one, pass what they claim."""

from tests.conformance.playing import conforms

test_go = conforms("go")
test_go_thin = conforms("go-thin")
