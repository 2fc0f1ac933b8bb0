"""Inference in the style of timm: its dataset, its transforms, its loader; the same network. No CLAHE.

python timm_inference.py DATA WEIGHTS.safetensors OUT
"""

import sys

import cnn1_torch
import torch
from shared import SIZE, cores, report, write_table

if "+cpu" in torch.__version__:
    # The registry's torchvision does not find its operators beside a torch without CUDA, and its import
    # ends at the first one. Declared here, they exist; nothing in this script calls them.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from timm.data import create_dataset, create_loader

if __name__ == "__main__":
    data, weights, out = sys.argv[1:4]
    network = cnn1_torch.load(weights)
    dataset = create_dataset("", root=data)
    loader = create_loader(
        dataset,
        input_size=(3, SIZE, SIZE),
        batch_size=32,
        use_prefetcher=False,
        num_workers=cores(),
        crop_pct=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        device=torch.device("cpu"),
    )
    logits = []
    with torch.inference_mode():
        for images, _ in loader:
            logits.append(network.head(network.convolutions(images)))
    names = dataset.filenames(basename=False, absolute=False)
    write_table(out, names, torch.cat(logits).sigmoid().numpy())
    report(len(names))
