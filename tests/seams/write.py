"""`python -m tests.seams.write WHEELS`: write what is there into `expected.json`, and print what that changes.

`nox -s seams -- write` fetches the releases and then does this. The difference is to be read before it is committed:
a seam that is gone needs an alternative in the table, an argument that is gone another way to get at its content.
"""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path

from .survey import EXPECTED, survey


def main(wheels: str) -> None:
    """Write the file and show the difference."""
    before = EXPECTED.read_text(encoding="utf-8").splitlines() if EXPECTED.exists() else []
    text = json.dumps(survey(Path(wheels)), indent=2) + "\n"
    EXPECTED.write_text(text, encoding="utf-8")
    print(
        "\n".join(difflib.unified_diff(before, text.splitlines(), "expected", "found", lineterm="", n=4)) or "no change"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
