"""The queue's side of the parser: a job's data in, progress out, failures sorted into "for good" and "try again".

Runs in a process of its own: the parser is native code, and a file that crashes it must not take the worker's session
and the other jobs with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobwire import FailForGood, Job
from jobwire_workers.excel_parse.errors import InputError
from jobwire_workers.excel_parse.parsing import parse_workbook
from jobwire_workers.excel_parse.storage import checked_key, open_store


@dataclass(frozen=True, slots=True)
class ExcelParse:
    """The handler for jobs whose data is `{"file_key": "uploads/report.xlsx"}`; returns `ParseResult.to_json()`.

    It is plain data, so that it travels to a worker's process.
    """

    storage: str
    """The storage's location, as `open_store` takes it."""

    def __call__(self, job: Job) -> dict[str, Any]:
        """Parses the job's workbook. A cancelled or expired job stops at its next report."""

        def report(fraction: float, note: str) -> None:
            job.check()
            job.report(fraction, note)

        try:
            file_key = checked_key(job.data.get("file_key") if isinstance(job.data, dict) else None)
            return parse_workbook(open_store(self.storage), file_key, report).to_json()
        except InputError as error:
            raise FailForGood(str(error)) from error
