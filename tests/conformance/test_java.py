"""The Java clients, the one that resumes and the thin one, pass what they claim."""

from tests.conformance.playing import conforms

test_java = conforms("java")
test_java_thin = conforms("java-thin")
