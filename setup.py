"""What setup.cfg cannot say to setuptools 70: the library in C, the README without broken links."""

import os
import re
from pathlib import Path

from setuptools import Extension, setup


def _long_description(readme: str, url: str) -> str:
    """The README for a package index, which has none of the files that it links to.

    With a URL of the project's files, links become absolute; without, their texts alone stay.
    """

    def changed(link: "re.Match[str]") -> str:
        picture, text, target = link.groups()
        if re.match("[a-z]+:", target):
            return link[0]
        if url and not target.startswith("#"):
            return f"{picture}[{text}]({url.rstrip('/')}/{target})"
        return "" if picture else text

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)]*)\)", changed, readme)


README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")

setup(
    long_description=_long_description(README, os.environ.get("TUMORBATCH_URL", "")),
    ext_modules=[
        Extension(
            "tumorbatch.native._native",
            sources=[f"tumorbatch/native/{name}.c" for name in ("align", "pixels", "variants", "warp")],
            depends=[f"tumorbatch/native/{name}.h" for name in ("kernels", "variants")],
            # -ffp-contract=off: float32 operations stay apart, as OpenCV's are.
            extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=off"],
            libraries=["m"],
            py_limited_api=True,  # it does not know Python at all: ctypes opens it
            optional=True,  # without a compiler OpenCV does its work
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
