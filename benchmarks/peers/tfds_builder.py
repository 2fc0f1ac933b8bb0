"""TensorFlow Datasets with a custom builder, as its guide shows: prepared shards of equalised images.

python tfds_builder.py DATA OUT
"""

import sys
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath
from shared import SIZE, equalised, image_paths, report


class Brain(tfds.core.GeneratorBasedBuilder):
    """Images in class folders, below `data`."""

    # A builder in a script has no folder of its own with descriptions.
    pkg_dir_path = epath.Path(__file__).parent
    VERSION = tfds.core.Version("1.0.0")
    data = ""

    def _info(self) -> tfds.core.DatasetInfo:
        classes = sorted(path.name for path in Path(self.data).iterdir() if path.is_dir())
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 1)),
            "label": tfds.features.ClassLabel(names=classes),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for path in image_paths(self.data):
            name = Path(path).relative_to(self.data)
            image = equalised(path)[..., None]
            yield str(name), {"image": image, "label": name.parts[0]}


if __name__ == "__main__":
    Brain.data, out = sys.argv[1:3]
    tfds.disable_progress_bar()
    builder = Brain(data_dir=out)
    builder.download_and_prepare()
    report(builder.info.splits["train"].num_examples)
