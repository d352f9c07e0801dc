"""The package as a library: any callable (x_t, t, y) -> eps is a backbone."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from duodiff import samplers
from duodiff.backbones import Guided, duodiff, single
from duodiff.schedules import T, noise_schedule

SCHEDULE = noise_schedule("linear")
SHAPE = (3, 8, 10)
STEPS = {name: getattr(samplers, name)(SCHEDULE, 20) for name in ("ddpm", "ddim", "dpm_solver_pp")}
CLASSES = 5


class ConvNet(nn.Module):
    """Two convolutions with an embedding of time and label between them."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.time, self.label = nn.Linear(1, width), nn.Embedding(CLASSES + 1, width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        condition = self.time(t[:, None] / T) + (0 if y is None else self.label(y))
        return self.last(torch.relu(self.first(x) + condition[:, :, None, None]))


def unet(width: int):
    """diffusers' UNet2DModel as a backbone: the adapter is one line."""
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=8,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        block_out_channels=(width, width),
        norm_num_groups=2,
        attention_head_dim=4,
        layers_per_block=1,
    ).eval()
    return lambda x, t, y: net(x, t).sample


@pytest.fixture(params=[ConvNet, unet], ids=["convolutions", "diffusers"])
def pair(request):
    """Two backbones that count their calls: (full, shallow, counts)."""
    torch.manual_seed(0)
    counts = {"full": 0, "shallow": 0}

    def counting(name, net):
        def call(x, t, y):
            assert (t.shape, t.dtype, t.unique().numel()) == ((len(x),), torch.int64, 1)
            counts[name] += 1
            return net(x, t, y)

        return call

    full, shallow = counting("full", request.param(12)), counting("shallow", request.param(4))
    return full, shallow, counts


def images(schedule, sampler: str, start: int = 0, count: int = 4) -> Tensor:
    y = torch.arange(start, start + count) % CLASSES
    return samplers.sample(schedule, STEPS[sampler], SHAPE, start, count, seed=7, y=y)


@pytest.mark.parametrize("sampler", STEPS)
@pytest.mark.parametrize("t_s", [0, 300, 526, 527, T])  # t = 473 is one of the steps
def test_each_backbone_runs_at_its_timesteps_and_no_others(pair, sampler, t_s):
    full, shallow, counts = pair
    x = images(duodiff(full, shallow, t_s), sampler)
    expected = sum(step.t >= T - t_s for step in STEPS[sampler])
    assert counts == {"shallow": expected, "full": 20 - expected}
    assert x.shape == (4, *SHAPE)
    assert x.isfinite().all()


@pytest.mark.parametrize("sampler", STEPS)
def test_the_ends_of_the_switch_are_the_backbones_alone(pair, sampler):
    full, shallow, _ = pair
    alone = {t_s: images(single(net), sampler) for t_s, net in ((0, full), (T, shallow))}
    for t_s, x in alone.items():
        assert torch.equal(images(duodiff(full, shallow, t_s), sampler), x)
    assert not torch.allclose(alone[0], alone[T])
    switched = images(duodiff(full, shallow, 500), sampler)
    assert not any(torch.allclose(switched, x) for x in alone.values())


@pytest.mark.parametrize("sampler", STEPS)
def test_an_image_does_not_depend_on_the_batch_it_is_in(pair, sampler):
    schedule = duodiff(*pair[:2], 500)
    whole = images(schedule, sampler, 0, 6)
    parts = [images(schedule, sampler, *part) for part in ((0, 1), (1, 3), (4, 2))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4)


def test_any_conditional_callable_can_be_guided():
    torch.manual_seed(0)
    net = ConvNet(6)
    x, t, y = torch.randn(2, *SHAPE), torch.full((2,), 9), torch.tensor([1, 3])
    cond, uncond = net(x, t, y), net(x, t, torch.full_like(y, CLASSES))
    guided = Guided(lambda *arguments: net(*arguments), 0.5, null_class=CLASSES)
    torch.testing.assert_close(guided(x, t, y), cond + 0.5 * (cond - uncond))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_the_ten_lines_run_as_written(page):
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    lines = re.search(r"```python\n(from duodiff import samplers\n.*?)```", text, re.S)[1]
    names = {"full": lambda x, t, y: 0.1 * x, "shallow": lambda x, t, y: 0.2 * x}
    exec(lines, names)
    assert names["images"].shape == (64, 3, 32, 32)
    assert names["images"].isfinite().all()
