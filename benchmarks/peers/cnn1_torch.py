"""cnn1 in PyTorch, with the weights of a bundle: the same network for PyTorch's and Ray's peers."""

import torch
from safetensors.numpy import load_file
from torch import nn

SIDE = 17  # of the last feature map, for images of 150 x 150


class Cnn1(nn.Module):
    """uint8 [N, 1, 150, 150] to logits, float32 [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        layers = []
        for channels in (3, 32, 32):
            layers += [nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * SIDE * SIDE, 128), nn.ReLU(), nn.Linear(128, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Replicate the grey channel, scale to 0 to 1, and classify."""
        image = image.float().div(255)
        return self.head(self.convolutions(image.expand(-1, 3, -1, -1)))


def load(weights: str) -> Cnn1:
    """Return the network with the weights of a bundle's weights.safetensors."""
    arrays = {name: torch.from_numpy(array) for name, array in load_file(weights).items()}
    network = Cnn1()
    state = {}
    for number in (1, 2, 3):  # Keras: [height, width, in, out]
        kernel, bias = _layer(arrays, f"conv_{number}")
        state[f"convolutions.{3 * (number - 1)}.weight"] = kernel.permute(3, 2, 0, 1)
        state[f"convolutions.{3 * (number - 1)}.bias"] = bias
    kernel, bias = _layer(arrays, "dense_1")  # Keras flattens [height, width, channel]
    kernel = kernel.reshape(SIDE, SIDE, 32, 128).permute(3, 2, 0, 1).reshape(128, -1)
    state |= {"head.1.weight": kernel, "head.1.bias": bias}
    kernel, bias = _layer(arrays, "logit")
    state |= {"head.3.weight": kernel.T, "head.3.bias": bias}
    network.load_state_dict(state)
    return network.eval()


def _layer(arrays: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return kernel and bias of a layer."""
    kernel, bias = (
        next(array for key, array in arrays.items() if name in key and key.endswith(kind))
        for kind in ("kernel", "bias")
    )
    return kernel, bias
