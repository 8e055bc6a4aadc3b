"""A FastMCP server over stdio, as `python` runs it and as `fastmcp run` does."""

from fastmcp import FastMCP

server = FastMCP("weather")


@server.tool
def add(a: int, b: int) -> int:
    return a + b


if __name__ == "__main__":
    server.run(show_banner=False)
