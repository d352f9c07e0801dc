from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from duodiff.metrics.flops import gflops, parameters
from duodiff.study.grid import backbone_architecture
from duodiff.uvit import UViT

PAPER = Path(__file__).parents[2] / "config/paper.yaml"
TINY = {"img_size": 6, "patch_size": 2, "in_chans": 5, "embed_dim": 14, "num_heads": 7, "depth": 5}

# of config/paper.yaml's networks, full and 3-block: parameters (M) and GFLOPs
PAPER_NETWORKS = {
    "cifar10": ((44.26, 10.12), (24.40, 5.53)),
    "celeba64": ((44.29, 10.16), (24.42, 5.55)),
    "imagenet64": ((130.94, 23.48), (70.47, 12.22)),
    "imagenet256": ((286.76, 41.20), (152.91, 21.40)),
}


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_parameters_and_flops_of_the_papers_networks(name):
    experiment = yaml.safe_load(PAPER.read_text(encoding="utf-8"))["experiments"][name]
    for role, m, g in zip(("full", "shallow"), *PAPER_NETWORKS[name], strict=True):
        with torch.device("meta"):
            net = UViT(**backbone_architecture(experiment, role))
        assert parameters(net) / 1e6 == pytest.approx(m, abs=0.006)
        assert gflops(net) == pytest.approx(g, abs=0.006)


def test_depth_counts_all_blocks():
    net = UViT(**TINY)
    assert (len(net.in_blocks), len(net.out_blocks)) == (2, 2)
    assert all(block.skip_linear is None for block in [*net.in_blocks, net.mid_block])


@pytest.mark.parametrize("num_classes", [-1, 3])
@pytest.mark.parametrize("mlp_time_embed", [False, True])
@pytest.mark.parametrize("conv", [False, True])
def test_output_has_the_inputs_shape_and_sees_time_and_label(num_classes, mlp_time_embed, conv):
    torch.manual_seed(0)
    net = UViT(
        **TINY, num_classes=num_classes, mlp_time_embed=mlp_time_embed, conv=conv, qkv_bias=True
    )
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)
    x, t = torch.randn(3, 5, 6, 6), torch.tensor([0.0, 10.0, 999.0])
    y = torch.tensor([0, 1, 2]) if num_classes > 0 else None
    out = net(x, t, y)
    assert out.shape == x.shape
    assert (net(x, t.flip(0), y) - out).abs().max() > 1e-4
    if y is not None:
        assert (net(x, t, y.flip(0)) - out).abs().max() > 1e-4
    # each image is computed on its own
    torch.testing.assert_close(net(x[1:2], t[1:2], None if y is None else y[1:2]), out[1:2])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_network_and_its_gradients_are_those_of_pytorchs_own_layers(monkeypatch, precision):
    torch.manual_seed(0)
    net, x, t = UViT(**TINY, qkv_bias=True), torch.randn(2, 5, 6, 6), torch.tensor([1, 2])

    def computed():
        net.zero_grad()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            out = net(x, t)
        out.float().square().sum().backward()
        return {"output": out.detach()} | {k: p.grad for k, p in net.named_parameters()}

    found = computed()
    monkeypatch.setattr("duodiff.uvit.FUSED_ATTENTION_FROM", 0)
    monkeypatch.setattr("duodiff.uvit.Linear.forward", nn.Linear.forward)
    monkeypatch.setattr("duodiff.uvit.add", torch.add)
    tolerance = {} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for name, expected in computed().items():
        torch.testing.assert_close(
            found[name], expected, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 4}, "depth: found 4; accepted: an odd number of blocks >= 3"),
        ({"depth": 1}, "depth: found 1"),
        ({"patch_size": 4}, "patch_size: found 4; it must divide img_size 6"),
        ({"num_heads": 3}, "num_heads: found 3; it must divide embed_dim 14"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        UViT(**TINY | wrong)


def test_inputs_that_do_not_fit_are_refused():
    net, t = UViT(**TINY), torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"found shape \(2, 5, 6, 7\).*\(5, 6, 6\)"):
        net(torch.zeros(2, 5, 6, 7), t)
    with pytest.raises(ValueError, match="y: given for num_classes=-1"):
        net(torch.zeros(2, 5, 6, 6), t, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="y: missing for num_classes=3"):
        UViT(**TINY, num_classes=3)(torch.zeros(2, 5, 6, 6), t)
