"""The release locks hold what the project asks for, pinned and by hash (``make lock``)."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = {"release-balancer.txt": (), "release-agent.txt": ("agent",)}
LINE = re.compile(
    r"(?P<name>[a-z0-9.-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>[^\\]+?))?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)
# Where it is said to run (pyproject's classifiers), as markers see it.
PLACES = [
    {"python_full_version": f"{python}.0", "sys_platform": system, "platform_machine": machine}
    for python in ("3.11", "3.12", "3.13", "3.14")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


@dataclass
class Pin:
    """A package's line in a lock."""

    name: str
    version: str
    marker: str | None

    def is_for(self, place: dict[str, str]) -> bool:
        return self.marker is None or Marker(self.marker).evaluate(place)


def pins_of(lock: str) -> list[Pin]:
    """All lines of a lock; whatever is no pin with hashes fails."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    pins = []
    for line in lines:
        match = LINE.fullmatch(re.sub(" +", " ", line.strip()))
        assert match is not None, f"{lock}: no pinned version with hashes: {line[:100]}"
        pins.append(Pin(canonicalize_name(match["name"]), match["version"], match["marker"]))
    return pins


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"]]
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_to_a_version_that_fits(lock: str) -> None:
    pins = pins_of(lock)
    for place in PLACES:
        here = {pin.name: Version(pin.version) for pin in pins if pin.is_for(place)}
        for requirement in wanted(LOCKS[lock]):
            version = here.get(canonicalize_name(requirement.name))
            assert version is not None, f"{lock} has no {requirement.name} for {place}: make lock"
            specifiers: SpecifierSet = requirement.specifier
            assert version in specifiers, f"{lock}: {requirement.name} {version}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_no_place_gets_a_package_twice(lock: str) -> None:
    pins = pins_of(lock)
    for place in PLACES:
        here = [pin.name for pin in pins if pin.is_for(place)]
        assert len(here) == len(set(here)), place


def test_balancers_and_agents_get_the_same_versions() -> None:
    balancer, agent = (
        {(pin.name, pin.version) for pin in pins_of(lock) if pin.marker is None} for lock in LOCKS
    )
    assert balancer <= agent


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_place_of_a_machine(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert not re.findall(r"https?:|file:|--index|--find-links|(?<!\\)\n/|@ ", text)
