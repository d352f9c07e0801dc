"""The fast form of a U-ViT: what `UViT.forward` gives, up to rounding."""

import pytest
import torch

from duodiff.fast import FastUViT
from duodiff.uvit import UViT

TINY = {"img_size": 6, "patch_size": 2, "in_chans": 5, "embed_dim": 14, "num_heads": 7, "depth": 5}
KINDS = [
    {},
    {"num_classes": 3, "qkv_bias": True},
    {"conv": False, "mlp_time_embed": True},
    {"num_classes": 3, "conv": False, "mlp_time_embed": True, "qkv_bias": True},
]


def network(device: str, **options) -> UViT:
    """A network whose every parameter is random, as after a training."""
    torch.manual_seed(0)
    net = UViT(**(TINY | options))
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return net.to(device).requires_grad_(False)


def given(net: UViT, batch: int = 3) -> tuple:
    device = net.pos_embed.device
    x = torch.randn(batch, net.in_chans, net.img_size, net.img_size)
    t, y = torch.arange(batch) * 333, torch.arange(batch) % 3 if net.num_classes > 0 else None
    return tuple(v if v is None else v.to(device) for v in (x, t, y))


@pytest.mark.parametrize("options", KINDS)
def test_in_float32_the_fast_form_is_the_network(device, options):
    net = network(device, **options)
    x, t, y = given(net)
    before = {name: p.clone() for name, p in net.state_dict().items()}
    expected, found = net(x, t, y), FastUViT(net, torch.float32)(x, t, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())


def test_other_weights_give_another_output():
    net = network("cpu")
    x, t, y = given(net)
    found = FastUViT(net, torch.float32)(x, t, y)
    for name, p in net.named_parameters():
        p.data += 0.1
        assert not torch.equal(FastUViT(net, torch.float32)(x, t, y), found), name
        p.data -= 0.1


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return (found - exact).square().mean().sqrt().item()


@pytest.mark.parametrize("options", [KINDS[0], KINDS[3]])
def test_in_bfloat16_the_fast_form_is_about_as_exact_as_autocast(device, options):
    sizes = {"embed_dim": 64, "num_heads": 4, "depth": 13, "img_size": 16, "in_chans": 3}
    net = network(device, **sizes, **options)
    x, t, y = given(net, 16)
    exact = net(x, t, y)
    with torch.autocast(device, torch.bfloat16):
        autocast = net(x, t, y)
    found = FastUViT(net, torch.bfloat16)(x, t, y)
    assert found.dtype == torch.float32
    assert 0 < error(found, exact) <= 1.5 * error(autocast, exact)


def test_the_weights_are_stored_in_the_dtype():
    fast = FastUViT(network("cpu", num_classes=3), torch.bfloat16)
    assert {p.dtype for p in fast.parameters()} == {torch.bfloat16}
    assert {name for name, p in fast.named_buffers() if p.dtype == torch.float32} == {"pos_embed"}


def test_a_wrong_input_is_refused():
    fast = FastUViT(network("cpu", num_classes=3), torch.float32)
    x, t, _ = given(fast.net)
    with pytest.raises(ValueError, match="y: missing"):
        fast(x, t)
