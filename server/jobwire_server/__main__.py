"""`python -m jobwire_server`: the command line, for where the `jobwire` script is not on the path."""

from __future__ import annotations

from jobwire_server.cli import main

if __name__ == "__main__":
    main()
