"""Runs the worker: `python -m jobwire_workers.excel_parse --server HOST:PORT --storage URL`.

JOBWIRE_TOKEN and JOBWIRE_CA_FILE in the environment are for a server that wants a token or speaks TLS.
"""

from __future__ import annotations

import argparse
import sys

from jobwire import Worker, access_from_environment
from jobwire_workers.excel_parse.errors import StorageError
from jobwire_workers.excel_parse.handler import ExcelParse
from jobwire_workers.excel_parse.storage import open_store


def main() -> None:
    """Works until SIGTERM or SIGINT, which let running jobs finish or give them back; exits with 2 on a bad option."""
    parser = _parser()
    options = parser.parse_args()
    try:
        open_store(options.storage)
        access = access_from_environment()
    except (ValueError, StorageError) as error:
        parser.error(str(error))
    worker = Worker(options.server, **access)
    handle = worker.handler(options.queue, concurrency=options.concurrency, run_in="process")
    handle(ExcelParse(options.storage))
    sys.stderr.write(
        f"excel-parse: working on queue {options.queue!r} of {options.server}, {options.concurrency} at a time, "
        f"files in {options.storage}\n"
    )
    worker.run_forever()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobwire_workers.excel_parse",
        description="Takes jobs that name an uploaded workbook and writes its clean data beside it as Parquet.",
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="address of the Jobwire server")
    parser.add_argument(
        "--storage",
        required=True,
        metavar="URL",
        help="where the files lie: a folder, file:///…, or s3://bucket/prefix (AWS_… in the environment says the rest)",
    )
    parser.add_argument("--queue", default="excel-parse", metavar="NAME", help="the queue (default: %(default)s)")
    parser.add_argument(
        "--concurrency", type=_positive, default=1, metavar="N", help="workbooks parsed at once (default: %(default)s)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    main()
