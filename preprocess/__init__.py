"""Stage 1, imported as `tumorbatch.preprocess`: from images to shards.

Decoders, pixels, groups of copies, splits and the shard set. Nothing here loads TensorFlow
or knows a model.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.preprocess.decode import decode as decode_image
    from tumorbatch.preprocess.equalize_folder import Config as EqualizeConfig
    from tumorbatch.preprocess.equalize_folder import run as equalize_images
    from tumorbatch.preprocess.pixels import equalize as equalize_image
    from tumorbatch.preprocess.pixels import resize as resize_image
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.preprocess.shard import run as write_shards
    from tumorbatch.preprocess.splits import Fractions
    from tumorbatch.preprocess.verify import run as verify_shards

__all__ = [
    "EqualizeConfig",
    "Fractions",
    "ShardConfig",
    "decode_image",
    "equalize_image",
    "equalize_images",
    "resize_image",
    "verify_shards",
    "write_shards",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "write_shards": "tumorbatch.preprocess.shard:run",
        "ShardConfig": "tumorbatch.preprocess.shard:Config",
        "Fractions": "tumorbatch.preprocess.splits:Fractions",
        "verify_shards": "tumorbatch.preprocess.verify:run",
        "equalize_images": "tumorbatch.preprocess.equalize_folder:run",
        "EqualizeConfig": "tumorbatch.preprocess.equalize_folder:Config",
        "decode_image": "tumorbatch.preprocess.decode:decode",
        "equalize_image": "tumorbatch.preprocess.pixels:equalize",
        "resize_image": "tumorbatch.preprocess.pixels:resize",
    },
)
