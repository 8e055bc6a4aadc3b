"""Every name that is patched is in the published releases where it is expected, and in no other."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from .survey import (
    DISTRIBUTIONS,
    Distribution,
    Release,
    by_release,
    load,
    reads_of,
    targets_of,
)

RELEASES = [
    pytest.param(distribution, release, id=f"{distribution.name}-{release}")
    for distribution in DISTRIBUTIONS
    for release in distribution.releases
]
each_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=[each.name for each in DISTRIBUTIONS])
each_release = pytest.mark.parametrize(("distribution", "release"), RELEASES)
REWRITE = "\nIf that is right: nox -s seams -- write"


@pytest.fixture
def wheels() -> Path:
    folder = os.environ.get("SEAMS_WHEELS")
    assert folder, "SEAMS_WHEELS has to name the folder of the unpacked releases; `nox -s seams` fetches them"
    return Path(folder)


unpacked = cache(Release)  # to read the sources takes its time


@each_distribution
def test_the_expectations_are_about_the_table(distribution: Distribution) -> None:
    expected, seams = load()[distribution.name], targets_of(distribution)
    changes = [f"not expected yet: {seam}" for seam in seams if seam not in expected]
    changes += [f"no longer in the table: {seam}" for seam in expected if seam not in seams]
    for seam, target in seams.items():
        if seam in expected and expected[seam]["reads"] != (found := reads_of(target)):
            changes.append(f"{seam}: the adapter reads {found}, expected {expected[seam]['reads']}")
    assert not changes, "\n".join(changes) + REWRITE


@each_release
def test_a_release_has_the_expected_seams(distribution: Distribution, release: str, wheels: Path) -> None:
    there, expected, changes = unpacked(wheels, distribution, release), load()[distribution.name], []
    for seam, target in targets_of(distribution).items():
        if seam not in expected:
            continue  # the test above says so
        wanted = by_release(expected[seam]["releases"], distribution.releases)[release]
        found = there.describe(target, expected[seam]["reads"])
        if wanted and not found:
            changes.append(f"vanished: {seam}\n    expected {wanted}")
        elif found and not wanted:
            changes.append(f"appeared: {seam}\n    {found}")
        elif found != wanted:
            changes.append(f"changed: {seam}\n    expected {wanted}\n    found    {found}")
    assert not changes, "\n".join(changes) + REWRITE


@each_release
def test_a_release_has_arguments_where_they_are_read(distribution: Distribution, release: str, wheels: Path) -> None:
    there, wrong = unpacked(wheels, distribution, release), []
    for seam, target in targets_of(distribution).items():
        wrong += [f"{seam}: another argument than {name}" for name in there.misplaced(target, reads_of(target))]
        if reason := there.unfit(target):
            wrong.append(f"{seam}: {reason}")
    assert not wrong, "\n".join(wrong)


def test_each_entry_of_the_table_is_about_some_release(wheels: Path) -> None:
    # A framework that moved has each entry twice, and not each name in both places.
    there: dict[tuple[str, str], bool] = {}
    for distribution in DISTRIBUTIONS:
        releases = [unpacked(wheels, distribution, release) for release in distribution.releases]
        for target in targets_of(distribution).values():
            seam = (target.attribute, target.adapter)
            there[seam] = there.get(seam, False) or any(release.find(target) for release in releases)
    useless = [seam for seam, found in there.items() if not found]
    assert not useless, f"in no release: {useless}"
