"""A U-ViT's forward pass as a GPU computes it fast: with weights stored in the dtype that it computes in.

It gives what `UViT.forward` gives, up to rounding. The weights are the official ones in another arrangement, which no
checkpoint holds.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from duodiff.uvit import Block, UViT, timestep_embedding


class FastUViT(nn.Module):
    """A U-ViT's copy that computes in `dtype`, without autocast: (x, t, y) -> its output, float32, like x.

    Against `UViT.forward` in four ways.

    - Between blocks the tokens are a matrix [B L, D] in `dtype`. A layer norm reads and writes `dtype`, and computes in
      float32. Autocast would keep the tokens in float32 up to the first long skip.
    - A long skip is two products, of the tokens and of the skip, the second added to the first. Nothing is
      concatenated.
    - Patches are embedded by a matrix product, and only the tokens of patches reach the last layers.
    - q, k and v are views into one product.

    The sinusoidal embedding of the time and the positions stay in float32 until they are summed up.
    """

    pos_embed: Tensor

    def __init__(self, net: UViT, dtype: torch.dtype):
        super().__init__()
        self.net, self.dtype = copy.deepcopy(net).to(dtype).requires_grad_(False), dtype
        self.register_buffer("pos_embed", net.pos_embed.detach().float().clone())
        # skip_linear's weight [D, 2 D] is cut into that of the tokens and that of the skip
        blocks: Any = self.net.out_blocks
        halves = [block.skip_linear.weight.detach().chunk(2, dim=1) for block in blocks]
        self.of_tokens, self.of_skip = (
            nn.ParameterList(nn.Parameter(half.contiguous(), requires_grad=False) for half in side)
            for side in zip(*halves, strict=True)
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output, float32 like x [B, C, H, W]; t [B] is fed to the sinusoidal embedding unscaled."""
        net = self.net
        tokens, skips = self.embed(x, t, y), []
        for block in net.in_blocks:
            tokens = self.run(block, tokens, len(x))
            skips.append(tokens)
        tokens = self.run(net.mid_block, tokens, len(x))
        blocks: Any = net.out_blocks
        for block, of_tokens, of_skip in zip(blocks, self.of_tokens, self.of_skip, strict=True):
            tokens = torch.addmm(block.skip_linear.bias, tokens, of_tokens.t())
            tokens = torch.addmm(tokens, skips.pop(), of_skip.t())
            tokens = self.run(block, tokens, len(x))
        return self._decode(tokens, len(x))

    def embed(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """Tokens [B L, D] before the first block: label (if any), time, patches, plus positions."""
        net, p = self.net, self.net.patch_size
        net._check_input(x, y)
        pixels = rearrange(x, "b c (h p) (w q) -> (b h w) (c p q)", p=p, q=p).to(self.dtype)
        proj = net.patch_embed.proj
        patches = F.linear(pixels, proj.weight.flatten(1), proj.bias)
        time_emb = timestep_embedding(t, net.embed_dim)
        if isinstance(net.time_embed, nn.Sequential):
            time_emb = net.time_embed(time_emb.to(self.dtype))
        tokens = [time_emb[:, None], patches.view(len(x), -1, net.embed_dim)]
        if y is not None:
            tokens.insert(0, net.label_emb(y)[:, None])
        summed = torch.cat([part.float() for part in tokens], dim=1) + self.pos_embed
        return summed.to(self.dtype).flatten(0, 1)

    def run(self, block: Any, tokens: Tensor, batch: int) -> Tensor:
        """Tokens [B L, D] after a block, its long skip already merged."""
        tokens = tokens + self._attend(block, block.norm1(tokens), batch)
        hidden = F.gelu(_product(block.mlp.fc1, block.norm2(tokens)))
        return tokens + _product(block.mlp.fc2, hidden)

    def _attend(self, block: Block, tokens: Tensor, batch: int) -> Tensor:
        heads, dim = block.attn.num_heads, tokens.shape[1]
        qkv = _product(block.attn.qkv, tokens).view(batch, -1, 3, heads, dim // heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # [B, H, L, D / H], views
        attended = F.scaled_dot_product_attention(q, k, v)
        return _product(block.attn.proj, attended.transpose(1, 2).reshape(-1, dim))

    def _decode(self, tokens: Tensor, batch: int) -> Tensor:
        """The output [B, C, H, W] from the tokens [B L, D] after the last block."""
        net = self.net
        patches = tokens.view(batch, -1, net.embed_dim)[:, net.extras :]
        image = rearrange(
            _product(net.decoder_pred, net.norm(patches)),
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=net.img_size // net.patch_size,
            p=net.patch_size,
            q=net.patch_size,
        )
        return net.final_layer(image).float()


def _product(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)
