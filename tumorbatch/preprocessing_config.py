"""What is done to a file's pixels before the network sees them, as data with a fingerprint.

The description travels with everything that was made from it: dataset.json, model.json, the footer
of the predictions. The computation itself is `tumorbatch.preprocess.pixels`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tumorbatch.architectures import MIN_SIZE
from tumorbatch.checks import check_choice
from tumorbatch.errors import ConfigError

# Raise it whenever the same bytes would decode to other grey values than before.
# 2: luma of colour PNGs with gAMA or sRGB; bits above BitsStored, padding and percentiles of DICOM;
#    colour TIFFs with transparency; CMYK.
DECODE_VERSION = 2
_READABLE = range(1, DECODE_VERSION + 1)  # of sets and models that are there already
INTERPOLATIONS = ("area",)
CLAHE, PLAIN, NORMALISED = VARIANTS = ("clahe", "plain", "normalised")
# Raise it whenever `preprocess.normalised` gives other pixels than before.
NORMALISED_VERSION = 1
_MAX_SIZE = 1024  # pixels


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """decode -> uint8 grey -> CLAHE at native size -> resize to a square; or other variants of it.

    Attributes:
        size: Side of the square network input, in pixels (150: Öztüner's report).
        clahe: Whether contrast-limited adaptive histogram equalisation is applied.
        clahe_clip: CLAHE clip limit, in multiples of a flat histogram's bin (2.0: the report).
        clahe_grid: Number of tiles along each side, not their size in pixels (16: the report).
        interpolation: How pixels are resampled; "area" is OpenCV's INTER_AREA.
        decode_version: Version of the rules that turn a file into grey values.
        variants: What the channels of the input are, of `VARIANTS`: "clahe", "plain" (resized only),
            "normalised" (see `preprocess.normalised`). Empty: one channel, as `clahe` says; so is
            ("clahe",) or ("plain",) stored. `clahe` then says whether "clahe" is one of several.
    """

    size: int = 150
    clahe: bool = True
    clahe_clip: float = 2.0
    clahe_grid: int = 16
    interpolation: str = "area"
    decode_version: int = DECODE_VERSION
    variants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # 2 and 2.0 are equal, and must have one JSON and one fingerprint.
        object.__setattr__(self, "clahe_clip", float(self.clahe_clip))
        if self.variants:
            check_variants(self.variants)
            object.__setattr__(self, "clahe", CLAHE in self.variants)
            # A description that there has always been keeps its JSON and its fingerprint.
            if self.variants in ((CLAHE,), (PLAIN,)):
                object.__setattr__(self, "variants", ())
        if not MIN_SIZE <= self.size <= _MAX_SIZE:
            raise ConfigError(
                f"The size must be between {MIN_SIZE} and {_MAX_SIZE} pixels. Received: {self.size}."
            )
        if not 0 < self.clahe_clip <= 100:
            raise ConfigError(
                f"The CLAHE clip limit must be above 0 and at most 100. Received: {self.clahe_clip}."
            )
        if not 1 <= self.clahe_grid <= 64:
            raise ConfigError(
                f"The CLAHE grid must be between 1 and 64 tiles. Received: {self.clahe_grid}."
            )
        check_choice("The interpolation", self.interpolation, INTERPOLATIONS)
        if self.decode_version not in _READABLE:
            raise ConfigError(
                f"This was made with version {self.decode_version} of the decoding rules; this "
                f"tumorbatch has version {DECODE_VERSION}. Make it again, or use the tumorbatch "
                "that made it."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, in their order, as JSON values; `variants` only where there are any."""
        value = asdict(self)
        del value["variants"]
        if self.variants:
            value["variants"] = list(self.variants)
            if NORMALISED in self.variants:
                value["normalised_version"] = NORMALISED_VERSION
        return value

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the variant of each channel, one or more of `VARIANTS`."""
        return self.variants or ((CLAHE,) if self.clahe else (PLAIN,))

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one image: (size, size), or (size, size, channels) of several."""
        square = (self.size, self.size)
        return square if len(self.channels) == 1 else (*square, len(self.channels))

    def select(self, variants: Sequence[str]) -> "Preprocessing":
        """Return the same with other channels.

        Raises:
            ConfigError: None is given, one is unknown, or one is given twice.
        """
        check_variants(variants)
        return replace(self, variants=tuple(variants))

    def before_resizing(self) -> dict[str, Any]:
        """Return the fields that decide the pixels of an image at its own size, as JSON values."""
        names = ("clahe", "clahe_clip", "clahe_grid", "decode_version")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, value: Any) -> "Preprocessing":
        """Build from the values of `to_dict`.

        Raises:
            ConfigError: A field is missing, unknown, of the wrong type or out of range.
        """
        expected = {
            "size": int,
            "clahe": bool,
            "clahe_clip": float,
            "clahe_grid": int,
            "interpolation": str,
            "decode_version": int,
        }
        variants: tuple[str, ...] = ()
        if isinstance(value, dict) and "variants" in value:
            variants = _read_variants(value)
            value = {k: v for k, v in value.items() if k not in ("variants", "normalised_version")}
        if not isinstance(value, dict) or set(value) != set(expected):
            raise ConfigError(
                f"The preprocessing must have exactly the fields {', '.join(expected)}. "
                f"Received: {value}."
            )
        for name, kind in expected.items():
            if type(value[name]) is not kind:
                raise ConfigError(
                    f"The preprocessing's {name} must be of type {kind.__name__}. "
                    f"Received: {value[name]!r}."
                )
        return cls(**value, variants=variants)

    @property
    def fingerprint(self) -> str:
        """Return the sha256 (hex) of the canonical JSON: keys sorted, no spaces."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def check_variants(variants: Sequence[str]) -> None:
    """Raise `ConfigError` unless these are one or more of `VARIANTS`, each once."""
    for variant in variants:
        check_choice("The variant", variant, VARIANTS)
    if not variants or len(set(variants)) < len(variants):
        raise ConfigError(
            f"Name one or more variants, each once: {', '.join(VARIANTS)}. Received: "
            f"{', '.join(variants) or 'none'}."
        )


def _read_variants(value: dict[str, Any]) -> tuple[str, ...]:
    """Return the variants of a JSON description; raise `ConfigError` where they are impossible."""
    variants = value["variants"]
    if not isinstance(variants, list) or not all(type(name) is str for name in variants):
        raise ConfigError(
            f"The preprocessing's variants must be a list of names. Received: {variants!r}."
        )
    check_variants(variants)
    if variants in ([CLAHE], [PLAIN]) or value.get("clahe") is not (CLAHE in variants):
        raise ConfigError("The preprocessing's variants and clahe contradict each other.")
    version = value.get("normalised_version")
    expected = NORMALISED_VERSION if NORMALISED in variants else None
    if version != expected:
        raise ConfigError(
            f"This was made with version {version} of the variant {NORMALISED}; this tumorbatch has "
            f"version {NORMALISED_VERSION}. Make it again, or use the tumorbatch that made it."
        )
    return tuple(variants)
