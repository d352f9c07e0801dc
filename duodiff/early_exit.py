"""AdaDiff (Tang et al. 2024; the paper's Appendix A): a U-ViT that may exit before any block.

Layer i = 0..N-1 is evaluated *before* block i: an uncertainty u_i in (0, 1) and an output head g_i.
The network exits at the first layer with u_i <= theta (Eq. 3); exit layer N is the full network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duodiff.uvit import UViT


def exit_layers(u: Tensor, theta: float) -> Tensor:
    """First layer with u <= theta, int64 [B], of the uncertainties u [N, B]; N where there is none (Eq. 3).

    u equal to theta exits and a NaN never does; theta = 0 never exits, even where u underflows to 0.
    """
    layers, _ = u.shape
    exits = (u <= theta) & bool(theta > 0)
    return torch.where(exits.any(0), exits.int().argmax(0), layers)


class OutputHead(nn.Module):
    """g_i: the U-ViT's own output layers (norm, linear, convolution), for each layer.

    They start as a copy of the U-ViT's, or without `copied`, as in the released code, from PyTorch's default.
    """

    def __init__(self, uvit: UViT, copied: bool = True):
        super().__init__()
        self.norm = nn.LayerNorm(uvit.embed_dim)
        self.decoder_pred = nn.Linear(uvit.embed_dim, uvit.decoder_pred.out_features)
        self.final_layer = (
            nn.Conv2d(uvit.in_chans, uvit.in_chans, 3, padding=1) if uvit.conv else nn.Identity()
        )
        if copied:
            own = self.state_dict()
            self.load_state_dict({k: v for k, v in uvit.state_dict().items() if k in own})

    def forward(self, tokens: Tensor, uvit: UViT) -> Tensor:  # [B, L, D] -> [B, C, H, W]
        return self.final_layer(uvit.unpatchify(self.decoder_pred(self.norm(tokens))))


class UncertaintyHead(nn.Module):
    """u_i = mean over tokens of sigmoid(w^T [L_i, timesteps] + b) (Eq. 4), [B].

    Without `timestep_aware`, as in the released code, the time embedding is left out.
    """

    def __init__(self, dim: int, timestep_aware: bool):
        super().__init__()
        self.timestep_aware = timestep_aware
        self.linear = nn.Linear(2 * dim if timestep_aware else dim, 1)

    def forward(self, tokens: Tensor, time_emb: Tensor) -> Tensor:  # [B, L, D], [B, D] -> [B]
        dim = tokens.shape[-1]
        weight = self.linear.weight[0]
        bias: Tensor = self.linear.bias
        if self.timestep_aware:  # as a product with the concatenation, without concatenating
            bias = (bias + time_emb @ weight[dim:])[:, None]
        return torch.sigmoid(tokens @ weight[:dim] + bias).mean(1)


class AdaDiff(nn.Module):
    """A U-ViT with an uncertainty head and an output head before each of its N blocks.

    The output heads start as copies of the backbone's own, or not (`copy_output_heads`). `nan_count` counts the
    uncertainties that were not a number (and so did not exit) since the model was made.
    """

    nan_count: Tensor

    def __init__(self, uvit: UViT, timestep_aware: bool = True, copy_output_heads: bool = True):
        super().__init__()
        self.uvit = uvit
        self.output_heads = nn.ModuleList(
            OutputHead(uvit, copy_output_heads) for _ in range(uvit.depth)
        )
        self.uncertainty_heads = nn.ModuleList(
            UncertaintyHead(uvit.embed_dim, timestep_aware) for _ in range(uvit.depth)
        )
        self.register_buffer("nan_count", torch.zeros((), dtype=torch.long), persistent=False)

    def heads_parameters(self) -> list[nn.Parameter]:
        """The parameters that AdaDiff trains while the backbone is frozen (Appendix C)."""
        return [*self.output_heads.parameters(), *self.uncertainty_heads.parameters()]

    def layer_inputs(
        self, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Tokens before every block, N of [B, L, D], and the time embedding [B, D]; the last block is not run."""
        return self._tokens(self.uvit.depth - 1, x, t, y)

    def _tokens(
        self, blocks: int, x: Tensor, t: Tensor, y: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Tokens before the first block and after each of the first `blocks` ones, and the time embedding."""
        time_emb = self.uvit.embed_time(t)
        layers = [self.uvit.embed(x, time_emb, y)]
        skips: list[Tensor] = []
        for i in range(blocks):
            layers.append(self.uvit.run_block(i, layers[-1], skips))
        return layers, time_emb

    def evaluate_heads(self, layers: list[Tensor], time_emb: Tensor) -> tuple[Tensor, Tensor]:
        """Uncertainties u [N, B] and head outputs g [N, B, C, H, W] of `layer_inputs`."""
        u = [head(x, time_emb) for head, x in zip(self.uncertainty_heads, layers, strict=True)]
        g = [head(x, self.uvit) for head, x in zip(self.output_heads, layers, strict=True)]
        return torch.stack(u), torch.stack(g)

    def all_layers(
        self, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Full output [B, C, H, W], uncertainties [N, B] and head outputs [N, B, C, H, W]."""
        (*layers, last), time_emb = self._tokens(self.uvit.depth, x, t, y)
        return self.uvit.decode(last), *self.evaluate_heads(layers, time_emb)

    def simulate_exit(
        self, x: Tensor, t: Tensor, y: Tensor | None, theta: float
    ) -> tuple[Tensor, Tensor]:
        """Noise [B, C, H, W] and exit layer [B] with every layer computed, as in Appendix A.5."""
        full, u, g = self.all_layers(x, t, y)
        self.nan_count += u.isnan().sum()
        exits = exit_layers(u, theta)
        outputs = torch.cat([g, full[None]])
        return outputs[exits, torch.arange(len(x), device=x.device)], exits

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None, theta: float
    ) -> tuple[Tensor, Tensor]:
        """Noise [B, C, H, W] and exit layer int64 [B]: the batch shrinks as samples leave.

        Each sample pays for the blocks and uncertainty heads it used and one output head; equal to
        `simulate_exit` up to the last bits. One host synchronisation per block.
        """
        time_emb = self.uvit.embed_time(t)
        tokens = self.uvit.embed(x, time_emb, y)
        skips: list[Tensor] = []
        rows = torch.arange(len(x), device=x.device)
        eps, exits = torch.empty_like(x), torch.full_like(rows, self.uvit.depth)
        for i in range(self.uvit.depth):
            u = self.uncertainty_heads[i](tokens, time_emb)
            self.nan_count += u.isnan().sum()
            leaves = exit_layers(u[None], theta) == 0
            count = int(leaves.sum())
            if count:
                left = rows[leaves]
                eps[left] = self.output_heads[i](tokens[leaves], self.uvit).to(eps.dtype)
                exits[left] = i
                if count == len(rows):
                    return eps, exits
                stays = ~leaves
                rows, tokens, time_emb = rows[stays], tokens[stays], time_emb[stays]
                skips = [skip[stays] for skip in skips]
            tokens = self.uvit.run_block(i, tokens, skips)
        eps[rows] = self.uvit.decode(tokens).to(eps.dtype)
        return eps, exits


def uncertainty_target(g: Tensor, eps: Tensor) -> Tensor:
    """u_hat (Eq. 5): mean over C, H, W of tanh|g_i - eps|, [N, B], for g [N, B, C, H, W]."""
    return torch.tanh((g - eps).abs()).mean(dim=(2, 3, 4))


def layer_errors(g: Tensor, eps: Tensor) -> Tensor:
    """Squared error of each head, mean over C, H, W: [N, B] for g [N, B, C, H, W]."""
    return F.mse_loss(g, eps.expand_as(g), reduction="none").mean(dim=(2, 3, 4))


def uncertainty_loss(u: Tensor, u_hat: Tensor, *, detach: bool, sum_batch: bool) -> Tensor:
    """L_u (Eq. 6): sum over layers, mean over the batch, of (u - u_hat)^2, for u, u_hat [N, B].

    `detach` makes u_hat a constant, so that only u is trained; `sum_batch` sums over the batch as
    the released code does.
    """
    error = (u - (u_hat.detach() if detach else u_hat)) ** 2
    return error.sum() if sum_batch else error.sum(0).mean()


def layerwise_loss(errors: Tensor, u: Tensor, u_hat: Tensor, *, weight: str) -> Tensor:
    """L_UAL (Eq. 7): sum over layers, mean over the batch, of weight x error, for [N, B] inputs.

    `weight`: "prediction" is 1 - u as a constant (else its gradient biases u upward by half the
    squared error), "literal" is 1 - u with its gradient, "target" is 1 - u_hat with its gradient
    (the released code).
    """
    weights = {"prediction": 1 - u.detach(), "literal": 1 - u, "target": 1 - u_hat}
    return (weights[weight] * errors).sum(0).mean()
