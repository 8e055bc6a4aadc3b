"""The table of targets against the published releases: what is where, and what is expected to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry_instrumentation_mcp import targets as table
from opentelemetry_instrumentation_mcp.hooks import CONTEXT_MANAGER, Target

from .adapters import Adapters, Reads
from .source import Found, Sources

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.json"
UNTIL = " to "

Ranges = dict[str, Any]  # "first to last" release: what is there in each of them


class Distribution(NamedTuple):
    """What an index offers, the top-level package that it installs, and its releases, oldest first."""

    name: str
    package: str
    releases: tuple[str, ...]


DISTRIBUTIONS = tuple(
    Distribution(name, about["package"], tuple(about["releases"]))
    for name, about in json.loads((HERE / "releases.json").read_text(encoding="utf-8")).items()
)


def targets_of(distribution: Distribution, targets: tuple[Target, ...] = table.TARGETS) -> dict[str, Target]:
    """The entries of the table that are about this package, by `module:attribute`."""
    return {
        f"{target.module}:{target.attribute}": target
        for target in targets
        if target.module.partition(".")[0] == distribution.package
    }


def reads_of(target: Target, adapters: Adapters | None = None) -> Reads:
    """What the adapter of a target reads of the arguments."""
    return (adapters or Adapters(Path(table.__file__).parent)).reads(target.adapter)


def applies(target: Target, release: str) -> bool:
    """Whether the target is about this release."""
    return target.major is None or target.major == int(release.partition(".")[0])


class Release:
    """One release, unpacked in a folder of its own below `wheels`."""

    def __init__(self, wheels: Path, distribution: Distribution, release: str) -> None:
        folder = wheels / f"{distribution.name}-{release}"
        if not (folder / distribution.package).is_dir():
            raise FileNotFoundError(f"{folder} does not hold {distribution.package}: `nox -s seams` fetches it")
        self.release = release
        self._sources = Sources(folder)

    def find(self, target: Target) -> Found | None:
        """What is there for the target."""
        return self._sources.find(target.module, target.attribute) if applies(target, self.release) else None

    def describe(self, target: Target, reads: Reads) -> str | None:
        """In one line what is there, and which of the arguments that the adapter reads are not."""
        found = self.find(target)
        if found is None:
            return None
        lacking = [name for name in reads if found.parameters and not found.parameters.has(name)]
        return f"{found}, without {' '.join(lacking)}" if lacking else str(found)

    def misplaced(self, target: Target, reads: Reads) -> list[str]:
        """The arguments that are read from a position where another may be."""
        found = self.find(target)
        if found is None or found.parameters is None:
            return []
        return [name for name, at in reads.items() if at is not None and found.parameters.misplaces(name, at)]

    def unfit(self, target: Target) -> str:
        """Why what is there can't be wrapped the way the table says; empty if it can."""
        found = self.find(target)
        if found is None or found.kind == "import":
            return ""
        if not found.is_callable:
            return f"{found.kind} is no function"
        if target.how == CONTEXT_MANAGER and not found.is_context_manager:
            return f"the table says {target.how}"
        return ""


def in_ranges(by_release: dict[str, str | None]) -> Ranges:
    """Neighbouring releases with the same content as one entry."""
    ranges: list[tuple[str, str, str | None]] = []
    for release, content in by_release.items():
        if ranges and ranges[-1][2] == content:
            ranges[-1] = (ranges[-1][0], release, content)
        else:
            ranges.append((release, release, content))
    return {first if first == last else f"{first}{UNTIL}{last}": content for first, last, content in ranges}


def by_release(ranges: Ranges, releases: tuple[str, ...]) -> dict[str, str | None]:
    """The reverse of `in_ranges`. A release beyond the last range is expected to be like the newest in it."""
    found: dict[str, str | None] = {}
    content: str | None = None
    starts = {key.partition(UNTIL)[0]: value for key, value in ranges.items()}
    for release in releases:
        content = starts.get(release, content)
        found[release] = content
    return found


def survey(wheels: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """What is there: by distribution and seam the arguments that are read, and the releases."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for distribution in DISTRIBUTIONS:
        releases = [Release(wheels, distribution, release) for release in distribution.releases]
        seams = result[distribution.name] = {}
        for name, target in sorted(targets_of(distribution).items()):
            reads = reads_of(target)
            there = {release.release: release.describe(target, reads) for release in releases}
            seams[name] = {"reads": reads, "releases": in_ranges(there)}
    return result


def load() -> dict[str, dict[str, dict[str, Any]]]:
    """What is expected."""
    expected: dict[str, dict[str, dict[str, Any]]] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return expected
