"""Terminal that commands print to."""

from __future__ import annotations

import sys

from rich.console import Console

# A log or a pipe has no width; tables are not cut there.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
