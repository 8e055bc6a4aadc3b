"""The test server with elicitation and completion, over stdio; ``python_server.build`` serves the HTTP tests too."""

# No `from __future__ import annotations`: SDK 1.9 does not resolve the annotations of tools if they are strings.
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import BaseModel

from support import sdk


class Answer(BaseModel):
    answer: str


def build() -> Any:
    server = sdk.build_server()

    completion = server.completion if sdk.VERSION >= (1, 10) else sdk.lowlevel(server).completion

    @completion()
    async def complete(ref: Any, argument: Any, context: Any = None) -> Any:
        names = [name for name in ("Ada", "Alan", "Grace") if name.startswith(argument.value)]
        return sdk.types.Completion(values=names)

    if sdk.VERSION >= (1, 10):

        @server.tool()
        async def elicit(ctx: sdk.Context) -> str:
            return str((await ctx.elicit("Well?", Answer)).action)

    return server


if __name__ == "__main__":
    build().run("stdio")
