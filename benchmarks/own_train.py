"""`tumorbatch train` as a command, for `bench.py`: the speed that it measures itself.

python own_train.py TFRECORDS OUT PRECISION EPOCHS

cnn1 with the report's augmentation; the first step, which compiles, is not counted.
"""

import json
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    tfrecords, out, precision, epochs = sys.argv[1:5]
    command = [sys.executable, "-m", "tumorbatch", "train", tfrecords, "--arch", "cnn1", "--out", out]
    command += ["--epochs", epochs, "--patience", epochs, "--precision", precision, "--quiet"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    rate = json.loads((Path(out) / "model.json").read_bytes())["training"]["images_per_second"]
    print(json.dumps({"images": round(10 * rate), "seconds": 10.0}))
