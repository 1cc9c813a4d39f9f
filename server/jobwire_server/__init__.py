"""The Jobwire service: `api` and `web` over `broker` over `store` over `domain`; arrows run one way.

`app` wires the parts together, `settings` says what can be set, `cli` is the command line. Nothing happens at import.
"""

from __future__ import annotations

__version__ = "0.1.0"
