"""Terminal that commands print to."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from smgeo.errors import printable


class _SafeConsole(Console):
    """A terminal that obeys only Rich: names in data may contain control characters of their own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return what is printed."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(printable(part.text), part.style)


# A log or a pipe has no width; tables are not cut there.
console = _SafeConsole(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
