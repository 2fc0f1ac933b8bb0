"""The library in C, which no other file can describe to setuptools 70; the rest is in setup.cfg."""

from setuptools import Extension, setup

setup(
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
