"""Operations and parameters of a U-ViT in closed form, as `duodiff.metrics.flops` counts them (no torch)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Network:
    """The cost of a U-ViT, in operations for one image and in parameters.

    `embed`, `blocks` and `decode` are the operations before the blocks, of each block, and after the blocks.
    `output_head` are the parameters of the last layers. AdaDiff has a copy of these layers for each block, and beside
    it an uncertainty head of `uncertainty` operations.
    """

    embed: float
    blocks: tuple[float, ...]
    decode: float
    parameters: int
    output_head: int
    uncertainty: float

    @property
    def forward(self) -> float:
        """Operations of one call."""
        return self.embed + sum(self.blocks) + self.decode

    @property
    def all_heads(self) -> float:
        """Operations of a call with every head of AdaDiff computed."""
        return self.forward + len(self.blocks) * (self.uncertainty + self.decode)

    def fixed_exit(self, layer: int) -> float:
        """Operations of a call in which every image runs the blocks before `layer`, and its output head."""
        return self.embed + sum(self.blocks[:layer]) + self.decode

    def exiting(self, layer: float) -> float:
        """Operations of a call that exits at `layer` on average.

        They are of the blocks before the exit, the uncertainty heads up to the exit, and one output head.
        """
        layers = np.arange(len(self.blocks) + 1)
        heads = self.uncertainty * np.minimum(layers + 1, len(self.blocks))
        done = np.interp(layer, layers, np.cumsum([0, *self.blocks]) + heads)
        return self.embed + float(done) + self.decode


def network(architecture: dict, timestep_aware: bool = True) -> Network:
    """The cost of a U-ViT, by its constructor's keywords, and of AdaDiff's uncertainty head on it (Eq. 4)."""
    a = architecture
    dim, patch, channels, size = (
        a[key] for key in ("embed_dim", "patch_size", "in_chans", "img_size")
    )
    hidden, pixels, half = int(dim * a["mlp_ratio"]), patch**2 * channels, a["depth"] // 2
    patches, classes = (size // patch) ** 2, max(0, a["num_classes"])
    tokens = patches + (2 if classes else 1)
    skip = 2 * dim * dim
    weights = 4 * dim * dim + 2 * dim * hidden  # of a block's matrices
    block = 2 * tokens * weights + 4 * tokens**2 * dim
    blocks = [block] * (half + 1) + [block + 2 * tokens * skip] * half
    time_mlp = 8 * dim * dim if a["mlp_time_embed"] else 0
    conv = 9 * channels**2 if a["conv"] else 0

    biases = 4 * dim + dim + hidden + dim + (3 * dim if a["qkv_bias"] else 0)  # and the norms
    output_head = 2 * dim + (dim + 1) * pixels + (conv + channels if conv else 0)
    parameters = a["depth"] * (weights + biases) + half * (skip + dim) + output_head
    parameters += (pixels + 1) * dim + (tokens + classes) * dim
    parameters += time_mlp + 5 * dim if time_mlp else 0
    return Network(
        embed=2 * patches * pixels * dim + 2 * time_mlp,
        blocks=tuple(blocks),
        decode=2 * tokens * dim * pixels + 2 * size**2 * conv,
        parameters=parameters,
        output_head=output_head,
        uncertainty=2 * dim * (tokens + timestep_aware),
    )
