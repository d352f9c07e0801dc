"""Noise by two ways: a CPU's, by numpy, and another device's, by wrapping integer arithmetic, here on a CPU too."""

import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from duodiff import noise
from duodiff.schedules import T
from duodiff.uvit import UViT

SIZES = {"3x32x32": 3 * 32 * 32, "3x64x64": 3 * 64 * 64, "4x32x32": 4 * 32 * 32, "odd": 105}
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
word = st.integers(0, 2**64 - 1)


def counters(*values: int, device: str = "cpu") -> tuple[torch.Tensor, ...]:
    return tuple(noise._scalar(value, device) for value in values)


def of_device(seed: int, stream: int, start: int, number: int, count: int, size: int, device="cpu"):
    """The normals of another device than a CPU."""
    each = -(-size // noise._NORMALS_PER_COUNT)
    return noise._normals(counters(seed, stream, start, number, device=device), count, size, each)


@given(
    seed=word,
    stream=word,
    start=st.integers(0, 2**62),
    number=word,
    count=st.integers(1, 40),
)
def test_the_integers_are_numpys(seed, stream, start, number, count):
    key = np.array([seed, stream], np.uint64)
    philox = np.random.Philox(key=key, counter=np.array([start, number, 0, 0], np.uint64))
    expected = torch.from_numpy(philox.random_raw(4 * count).view(np.int64)).view(count, 4)
    assert torch.equal(noise.integers(seed, stream, start, count, number=number), expected)
    for device in DEVICES:
        found = noise._integers(counters(seed, stream, start, number, device=device), count)
        assert torch.equal(found.cpu(), expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    stream=st.integers(0, 2**33),
    start=st.integers(0, 2**40),
    number=st.integers(0, 2**40),
    count=st.integers(1, 7),
    size=st.integers(1, 200),
)
def test_the_normals_of_another_device_are_within_1e_6(seed, stream, start, number, count, size):
    expected = noise.normals(seed, stream, start, count, size, number=number)
    for device in DEVICES:
        found = of_device(seed, stream, start, number, count, size, device)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.cpu(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_normals_of_images_are_within_1e_6_and_have_the_moments_of_normals(size):
    count = 2_000_000 // size
    mine = noise.normals(3, 17, 0, count, size).double()
    torch.testing.assert_close(
        of_device(3, 17, 0, 0, count, size).double(), mine, atol=1e-6, rtol=0
    )
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        # the variance of a mean of z^p is (m_2p - m_p^2) / n; 5 deviations
        spread = math.sqrt((math.prod(range(2 * power - 1, 0, -2)) - moment**2) / mine.numel())
        assert abs((mine**power).mean() - moment) < 5 * spread, power


def test_the_tails_are_those_of_normals_and_end_at_6_7():
    z = noise.normals(0, 3, 0, 2000, 8192).abs()  # 16 million
    for limit in (2, 3, 4, 5):
        expected = math.erfc(limit / math.sqrt(2)) * z.numel()
        assert abs((z > limit).sum() - expected) < 5 * math.sqrt(expected), limit
    assert z.max() < 6.77
    smallest, largest = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0**32 - 1, 0.0]])
    box_muller = noise._box_muller
    assert box_muller(smallest, 1, 1, torch.float64).item() == pytest.approx(6.7637, abs=1e-4)
    assert box_muller(largest, 1, 1, torch.float64).item() == pytest.approx(0, abs=1e-4)


def test_streams_seeds_numbers_and_images_are_independent():
    n, size = 500, 1024
    here = noise.normals(0, 5, 0, n, size).double()
    others = {
        "stream": noise.normals(0, 6, 0, n, size),
        "training's stream": noise.normals(0, noise.NOISE, 0, n, size),
        "seed": noise.normals(1, 5, 0, n, size),
        "number": noise.normals(0, 5, 0, n, size, number=1),
        "image": noise.normals(0, 5, n, n, size),
        "neighbour": here.roll(1, 0),
        "pixel": here.roll(1, 1),
        "half": here.roll(size // 2, 1),  # radius and angle are shared by two values of an image
    }
    limit = 5 / math.sqrt(n * size)
    for name, other in others.items():
        other = other.double()
        assert abs((here * other).mean()) < limit, name
        assert abs(((here**2 - 1) * (other**2 - 1)).mean()) < 2 * limit, name


def test_a_captured_graph_draws_other_noise_by_a_tensor_it_holds():
    """What a CUDA graph replays: no number of the host, and no branch, decides the noise."""
    seed, stream, start, number = counters(3, 5, 7, 0)

    def draw(stream, start):
        return noise._normals((seed, stream, start, number), 4, 100, 13)

    traced = torch.fx.experimental.proxy_tensor.make_fx(draw)(stream, start)
    for t, first in ((5, 7), (999, 0), (noise.INITIAL, 12345)):
        expected = noise.normals(3, t, first, 4, 100)
        torch.testing.assert_close(traced(*counters(t, first)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("n", [2, 7, T, 2**31])
def test_numbers_below_n_are_even(n):
    drawn = noise.below(noise.integers(0, noise.DRAWS, 0, 50_000), n).flatten()
    assert 0 <= drawn.min() <= drawn.max() < n
    share = (drawn + 0.5).double() / n
    for power in (1, 2):
        assert share.pow(power).mean() == pytest.approx(1 / (power + 1), abs=0.004 + 1 / n**2)


# --- what noise costs beside a network, by count

S4 = {"img_size": 64, "patch_size": 4, "in_chans": 3, "embed_dim": 512, "num_heads": 8}


class Counted(TorchDispatchMode):
    """Elements written by all operations, and bytes that matrix products and attention read and write."""

    def __init__(self):
        super().__init__()
        self.elements, self.bytes = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [v for v in (*args, out) if isinstance(v, torch.Tensor)]
        self.elements += out.numel() if isinstance(out, torch.Tensor) else 0
        if any(name in str(func) for name in ("mm", "attention", "convolution")):
            self.bytes += sum(v.nbytes for v in tensors)
        return out


def test_noise_takes_under_a_hundredth_of_the_operations_of_a_shallow_step():
    with torch.device("meta"):
        net, x, t = UViT(**S4, depth=3), torch.empty(128, 3, 64, 64), torch.empty(128)
    with FlopCounterMode(display=False) as flops:
        net(x, t)
    made = Counted()
    with made:
        noise._normals(counters(0, 5, 0, 0, device="meta"), 128, SIZES["3x64x64"], 1536)
    assert 100_000_000 < made.elements < 0.01 * flops.get_total_flops()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler")
def test_compiled_noise_moves_under_a_hundredth_of_the_bytes_of_a_shallow_step(caplog):
    """The compiler counts what its kernels read and write. Of the network matrix products alone count, in bfloat16."""
    with torch.device("meta"):
        net, x, t = UViT(**S4, depth=3), torch.empty(128, 3, 64, 64), torch.empty(128)
    step = Counted()
    with step:
        net(x, t)
    from torch._functorch import config as graphs
    from torch._inductor import config, metrics

    metrics.reset()  # a graph from a cache is not counted
    uncached = config.patch(fx_graph_cache=False), graphs.patch(enable_autograd_cache=False)
    with uncached[0], uncached[1], caplog.at_level("INFO", logger="torch"):
        compiled = torch.compile(noise._normals, dynamic=False, fullgraph=True)
        found = compiled(counters(3, 9, 0, 0), 128, SIZES["3x64x64"], 1536)
    expected = noise.normals(3, 9, 0, 128, SIZES["3x64x64"])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert found.nbytes < metrics.num_bytes_accessed < 0.01 * step.bytes / 2
