"""The table of settings that a tuning script writes beside its study, which reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latebloom.core.checkpoint import write_atomically


def put(table: Path, found: Mapping[str, Any], order: tuple[str, ...] = ()) -> None:
    """Write entries into a table, one a line; those of `order` first, if they are there. Killed, it leaves the old one."""
    now = json.loads(table.read_text()) | found
    now = {name: now[name] for name in (*order, *now) if name in now}
    lines = ",\n".join(f' "{name}": {json.dumps(value)}' for name, value in now.items())
    write_atomically(table, f"{{\n{lines}\n}}\n".encode())
