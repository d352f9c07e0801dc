"""The U-ViT backbone (Bao et al., CVPR 2023; the paper's Table 3).

Constructor keywords, defaults, parameter names and outputs are those of the official code, so its
published checkpoints load by key. One difference: `depth` counts every block (N//2 in, one mid,
N//2 out), as the paper does; the official code's depth is one less.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from duodiff.schedules import noise_schedule, prediction_coefficients, time_input

FUSED_ATTENTION_FROM = 48
"""The shortest sequence, in tokens, for which a CPU uses the fused kernel of attention."""


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of t [B] (any real values, unscaled), float32 [B, dim]: cosines, then sines."""
    half = dim // 2
    freqs = torch.exp(
        -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    )
    angles = t[:, None].float() * freqs
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


class Linear(nn.Linear):
    """nn.Linear, with a faster bias in float32 on a CPU.

    There, nn.Linear first copies the bias to every row of the output and then adds the matrix product. Here the
    product is written alone, and the bias is added to it in place. A GPU and autocast use nn.Linear as it is.
    """

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., E]
        if self.bias is None or x.is_cuda or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return F.linear(x, self.weight).add_(self.bias)


class Attention(nn.Module):
    """Multi-head self-attention. On a CPU, sequences below `FUSED_ATTENTION_FROM` tokens have code of their own."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, D] -> [B, L, D]
        if not x.is_cuda and x.shape[1] < FUSED_ATTENTION_FROM:
            return self.proj(self._attend_to_few(x))
        q, k, v = rearrange(self.qkv(x), "b l (k h d) -> k b h l d", k=3, h=self.num_heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(x, "b h l d -> b l (h d)"))

    def _attend_to_few(self, x: Tensor) -> Tensor:
        """The heads' outputs [B, L, D] before the last projection, by plain matrix products.

        On a CPU this is faster than the fused kernel for short sequences. Two things make it fast. Each head's q, k and
        v are a matrix product of their own, so they lie apart in memory and no copy is needed. The scores are
        [keys, queries], so the softmax runs over their first axis: a softmax over a short last axis is slow.
        """
        batch, length, dim = x.shape
        per_head = (3 * self.num_heads, dim // self.num_heads)  # q, k and v of every head
        qkv = x.flatten(0, 1) @ self.qkv.weight.unflatten(0, per_head).transpose(1, 2)
        if self.qkv.bias is not None:
            qkv = qkv + self.qkv.bias.unflatten(0, per_head)[:, None]
        q, k, v = qkv.view(3, self.num_heads * batch, length, -1)
        unused, scale = q.new_empty(1, 1, 1), q.shape[-1] ** -0.5
        scores = torch.baddbmm(unused, k, q.transpose(1, 2), beta=0, alpha=scale)
        x = scores.softmax(dim=1).transpose(1, 2) @ v  # scores: [H B, keys, queries]
        return rearrange(x, "(h b) l d -> b l (h d)", h=self.num_heads)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def add(branch: Tensor, x: Tensor) -> Tensor:
    """x + branch, written into the branch's memory if both have one dtype (under autocast they may not)."""
    return branch.add_(x) if branch.dtype == x.dtype else x + branch


class Block(nn.Module):
    """A pre-norm transformer block; with `skip`, it first merges a long skip connection."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, skip: bool = False
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.skip_linear = Linear(2 * dim, dim) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:  # [B, L, D] -> [B, L, D]
        if self.skip_linear is not None:
            assert skip is not None
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = add(self.attn(self.norm1(x)), x)
        return add(self.mlp(self.norm2(x)), x)


class PatchEmbed(nn.Module):
    def __init__(self, patch_size: int, in_chans: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, patches, D]
        return self.proj(x).flatten(2).transpose(1, 2)


class UViT(nn.Module):
    """A U-ViT predicting the noise in an image, by time, label and patch tokens in one sequence.

    img_size and patch_size in pixels, `num_classes` <= 0 for an unconditional network, `conv` adds
    the final 3x3 convolution. Raises ValueError for sizes that do not fit together.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 13,
        *,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        mlp_time_embed: bool = False,
        num_classes: int = -1,
        conv: bool = True,
    ):
        super().__init__()
        if depth < 3 or depth % 2 == 0:
            raise ValueError(f"depth: found {depth}; accepted: an odd number of blocks >= 3")
        if img_size % patch_size:
            raise ValueError(f"patch_size: found {patch_size}; it must divide img_size {img_size}")
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: found {num_heads}; it must divide embed_dim {embed_dim}")
        self.img_size, self.patch_size, self.in_chans = img_size, patch_size, in_chans
        self.embed_dim, self.depth, self.num_classes, self.conv = (
            embed_dim,
            depth,
            num_classes,
            conv,
        )
        self.extras = 2 if num_classes > 0 else 1  # time token, and label token before it

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.time_embed = (
            nn.Sequential(
                nn.Linear(embed_dim, 4 * embed_dim), nn.SiLU(), nn.Linear(4 * embed_dim, embed_dim)
            )
            if mlp_time_embed
            else nn.Identity()
        )
        if num_classes > 0:
            self.label_emb = nn.Embedding(num_classes, embed_dim)
        num_patches = (img_size // patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, self.extras + num_patches, embed_dim))

        block = (embed_dim, num_heads, mlp_ratio, qkv_bias)
        self.in_blocks = nn.ModuleList([Block(*block) for _ in range(depth // 2)])
        self.mid_block = Block(*block)
        self.out_blocks = nn.ModuleList([Block(*block, skip=True) for _ in range(depth // 2)])
        self.norm = nn.LayerNorm(embed_dim)
        self.decoder_pred = nn.Linear(embed_dim, patch_size**2 * in_chans)
        self.final_layer = nn.Conv2d(in_chans, in_chans, 3, padding=1) if conv else nn.Identity()
        self.apply(_init_weights)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def embed_time(self, t: Tensor) -> Tensor:
        """Time embedding [B, D] of the fed time t [B]."""
        return self.time_embed(timestep_embedding(t, self.embed_dim))

    def embed(self, x: Tensor, time_emb: Tensor, y: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] before the first block: label (if any), time, patches, plus positions."""
        self._check_input(x, y)
        tokens = [time_emb[:, None], self.patch_embed(x)]
        if y is not None:
            tokens.insert(0, self.label_emb(y)[:, None])
        return torch.cat(tokens, dim=1) + self.pos_embed

    def run_block(self, i: int, tokens: Tensor, skips: list[Tensor]) -> Tensor:
        """Tokens [B, L, D] after block i (0..depth-1); in-blocks push to `skips`, out-blocks pop."""
        half = self.depth // 2
        if i < half:
            skips.append(self.in_blocks[i](tokens))
            return skips[-1]
        if i == half:
            return self.mid_block(tokens)
        return self.out_blocks[i - half - 1](tokens, skips.pop())

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Images [B, C, H, W] of decoded tokens [B, L, p*p*C]; the extra tokens are dropped."""
        return rearrange(
            tokens[:, self.extras :],
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=self.img_size // self.patch_size,
            p=self.patch_size,
            q=self.patch_size,
        )

    def decode(self, tokens: Tensor) -> Tensor:
        """Predicted noise [B, C, H, W] from the tokens after the last block [B, L, D]."""
        return self.final_layer(self.unpatchify(self.decoder_pred(self.norm(tokens))))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predicted noise, like x [B, C, H, W].

        t [B] is fed to the sinusoidal embedding unscaled; y int64 [B] exactly if num_classes > 0.
        """
        tokens = self.embed(x, self.embed_time(t), y)
        skips: list[Tensor] = []
        for i in range(self.depth):
            tokens = self.run_block(i, tokens, skips)
        return self.decode(tokens)

    def _check_input(self, x: Tensor, y: Tensor | None) -> None:
        expected = (self.in_chans, self.img_size, self.img_size)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"x: found shape {tuple(x.shape)}; accepted: [B, C, H, W] = {expected}"
            )
        if (y is not None) != (self.num_classes > 0):
            raise ValueError(
                f"y: {'given' if y is not None else 'missing'} for num_classes={self.num_classes}"
            )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Denoiser(nn.Module):
    """A network with its conventions, as a backbone: (x_t, t, y) -> eps.

    `time_input` is the convention of the time fed to the network. `prediction` is the network's training target
    ("noise", "x_0" or "v") under the noise schedule called `schedule`. `precision` is the dtype that the network
    computes in: "float32", or "bfloat16" by autocast. Inputs and outputs are float32 in both.
    """

    eps_of_output: Tensor
    eps_of_x_t: Tensor

    def __init__(
        self,
        net: UViT,
        time_input: str = "t",
        prediction: str = "noise",
        schedule: str = "linear",
    ):
        super().__init__()
        self.net, self.time_input, self.prediction = net, time_input, prediction
        self.precision = "float32"
        *_, c, d = prediction_coefficients(prediction, noise_schedule(schedule))
        for name, values in (("eps_of_output", c), ("eps_of_x_t", d)):
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def predict(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the network itself gives for x_t, like x [B, C, H, W]: its estimate of its training target."""
        with self.computing(x.device):
            return self.net(x, time_input(self.time_input, t), y).to(x.dtype)

    def computing(self, device: torch.device) -> AbstractContextManager:
        """The block in which the network, or one that shares its layers, computes in `precision`."""
        if self.precision == "float32":
            return nullcontext()  # a training's own autocast is left as it is
        return torch.autocast(device.type, torch.bfloat16)

    def to_eps(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t that a predicted target [B, C, H, W] means, for int64 t [B]."""
        if self.prediction == "noise":
            return output
        of_output, of_x_t = (c[t].view(-1, 1, 1, 1) for c in (self.eps_of_output, self.eps_of_x_t))
        return of_output * output + of_x_t * x

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.to_eps(self.predict(x, t, y), x, t)
