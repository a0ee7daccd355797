"""Builds the one compiled module. ``PADDLER_BUILD`` picks how: release, checked or trace."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

# binding to autotestdict: what stubtest needs to compare the stub with the binary.
# auto_pickle: no object of ours can be pickled, and copying a mapping or a pointer would end badly.
COMMON = {
    "language_level": 3,
    "binding": True,
    "embedsignature": True,
    "autotestdict": False,
    "auto_pickle": False,
}
UNCHECKED = {"boundscheck": False, "wraparound": False, "initializedcheck": False}
CHECKED = {"boundscheck": True, "wraparound": True, "initializedcheck": True}
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",  # undefined behaviour ends the run, not only a line of log
    "-fno-omit-frame-pointer",
]

# name: (Cython directives, C flags, link flags, macros)
BUILDS = {
    # -O3: the slot scan is a loop that the compiler turns into vector instructions.
    "release": (COMMON | UNCHECKED, ["-O3"], [], []),
    "checked": (COMMON | CHECKED, ["-O1", "-g", "-UNDEBUG", *SANITIZERS], SANITIZERS, []),
    "trace": (
        COMMON | CHECKED | {"linetrace": True},
        ["-O1", "-g"],
        [],
        [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")],
    ),
}

build = os.environ.get("PADDLER_BUILD", "release")
if build not in BUILDS:
    raise SystemExit(f"PADDLER_BUILD={build!r}: expected one of {', '.join(BUILDS)}")
directives, compile_args, link_args, macros = BUILDS[build]

setup(
    ext_modules=cythonize(
        [
            Extension(
                "paddler._fastpath",
                ["paddler/_fastpath.pyx"],
                extra_compile_args=["-Wall", "-Wno-unused-function", *compile_args],
                extra_link_args=link_args,
                define_macros=macros,
            )
        ],
        compiler_directives=directives,
        force=True,
    ),
    # All builds write the same files: none may take over what another one left.
    options={"build_ext": {"force": True}},
)
