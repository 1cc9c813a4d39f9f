"""The machinery under the pages: what counts as the same output, and what as an excerpt of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Block, Shell, blocks_of, matches, stands_in


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\nb\n", "a\n", False),
        ("id 0190-ab done\n", "id … done\n", True),
        ("id 0190-ab done\n", "id … gone\n", False),
        ("a\nb\nc\nd\n", "a\n…\nd\n", True),
        ("a\nd\n", "a\n…\nd\n", True),
        ("a\nb\nc\n", "a\n…\nd\n", False),
        (" a.c   d  \n", "a.c d\n", True),
        ("abc\n", "a.c\n", False),
        ("", "", True),
    ],
)
def test_expected_output_is_compared_line_by_line(printed: str, expected: str, same: bool) -> None:
    assert matches(printed, expected) is same


FILE = """package main

func main() {
	a()
	if b() {
		c()
	}
}
"""


@pytest.mark.parametrize(
    ("excerpt", "stands"),
    [
        (FILE, True),
        ("a()\nif b() {\n\tc()\n}\n", True),
        ("c()\n", True),
        ("a()\nc()\n", False),
        ("a()\n// …\n}\n", True),
        ("func main() {\n\t// …\n\t\tc()\n", True),
        ("c()\n// …\na()\n", False),
        ("a();\n", False),
    ],
)
def test_an_excerpt_stands_in_its_file_line_by_line(excerpt: str, stands: bool) -> None:
    assert stands_in(excerpt, FILE) is stands


PAGE = """
```sh
echo one
```

```text
one
```

```go
// clients/go/some/file.go
a()
```

```sh nonsense-of-a-program other
false
```

```json
{}
```

```ts
// shown.ts
```
"""


def test_blocks_that_run_or_name_a_file_are_found() -> None:
    one, excerpt, left_out, written = blocks_of(PAGE)
    assert (one.code, one.output, one.line, one.runs) == ("echo one\n", "one\n", 2, True)
    assert (excerpt.file, excerpt.is_excerpt, excerpt.runs) == ("clients/go/some/file.go", True, False)
    assert left_out.needs == ("nonsense-of-a-program", "other")
    assert (written.file, written.is_excerpt) == ("shown.ts", False)


def test_a_block_that_only_looks_as_if_it_were_run_is_refused() -> None:
    with pytest.raises(AssertionError, match="'bash'"):
        blocks_of("```bash\ntrue\n```\n")


def test_a_page_whose_programs_are_missing_is_skipped_after_the_rest_was_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(pytest.skip.Exception, match=r"is here: nonsense \(lines 5\)"):
        shell.play("```sh\ntouch ran\n```\n\n```sh nonsense\nfalse\n```\n")
    assert (tmp_path / "ran").exists()


def test_an_excerpt_of_nothing_fails(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {})
    with pytest.raises(AssertionError, match="no such file"):
        shell.run(Block("go", "// clients/none/at/all.go\na()\n", 1))
    with pytest.raises(AssertionError, match="does not stand in"):
        shell.run(Block("python", "# tests/docs/pages.py\nnothing of the kind()\n", 1))
