"""The package as a library: any callable (x_t, t, y) -> eps is a backbone."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duodiff import samplers
from duodiff.backbones import EarlyExit, Guided, duodiff, single
from duodiff.schedules import NoiseSchedule, T, noise_schedule, own_schedule, timesteps

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


# --- misuse


def refused(error, *texts: str, call) -> None:
    with pytest.raises(error) as raised:
        call()
    for text in texts:
        assert text in str(raised.value)


def full(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    return 0.1 * x


@pytest.mark.parametrize(
    ("returned", "error", "found"),
    [
        (lambda x: x[:, :1], ValueError, "returned a tensor of shape [4, 1, 8, 10]"),
        (lambda x: x[:1], ValueError, "shape [1, 3, 8, 10]"),
        (lambda x: x.mean((2, 3)), ValueError, "shape [4, 3]"),
        (lambda x: torch.cat([x, x], 1), ValueError, ".chunk(2, dim=1)[0]"),
        (lambda x: (x,), TypeError, "returned tuple"),
        (lambda x: None, TypeError, "returned NoneType"),
        (lambda x: SimpleNamespace(sample=x), TypeError, "lambda x, t, y: unet(x, t).sample"),
    ],
)
def test_what_is_no_eps_is_refused_at_the_first_step_of_its_backbone(returned, error, found):
    def wrong(x: Tensor, t: Tensor, y: Tensor | None):
        return returned(x)

    for schedule, at in ((duodiff(full, wrong, 473), 999), (duodiff(wrong, full, 473), 525)):
        call = partial(images, schedule, "ddpm")
        refused(error, found, f"at t = {at} ", "[4, 3, 8, 10]", call=call)


@pytest.mark.parametrize("t_s", [0.3, 300.0, -1, 1001, "300", None])
def test_a_t_s_that_is_no_number_of_timesteps_is_refused(t_s):
    call = partial(duodiff, full, full, t_s)
    refused(ValueError, f"t_s: found {t_s!r}; accepted: 0 to 1000", "whole", call=call)


def test_whole_numbers_of_other_libraries_are_accepted():
    assert duodiff(full, full, np.int64(300)).at(0) is full


@pytest.mark.parametrize("theta", ["q0.4", 1.1, float("nan"), None])
def test_a_theta_that_is_no_threshold_is_refused(theta):
    call = partial(EarlyExit, None, theta, None)
    refused(ValueError, f"theta: found {theta!r}; accepted: a number from 0 to 1", call=call)


def test_what_is_no_backbone_is_refused():
    refused(TypeError, "backbone: found NoneType", call=lambda: duodiff(full, None, 300))
    refused(TypeError, "found dict; accepted: a callable", call=lambda: single({}))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"schedule": full}, TypeError, ["found function", "single(network)", "duodiff(full, "]),
        ({"steps": 1000}, TypeError, ["steps: found 1000", "samplers.ddpm(noise_schedule("]),
        ({"steps": []}, TypeError, ["steps: found []"]),
        ({"steps": [999, 0]}, TypeError, ["steps: found [999, 0]"]),
        ({"shape": (8, 10)}, ValueError, ["shape: found (8, 10)", "(C, H, W)"]),
        ({"shape": (4, 3, 8, 10)}, ValueError, ["without the batch"]),
        ({"y": torch.zeros(3, dtype=torch.int64)}, ValueError, ["torch.int64 [3]", "[4]"]),
        ({"y": torch.zeros(4)}, ValueError, ["found torch.float32 [4]"]),
        ({"y": [0, 1, 2, 3]}, ValueError, ["y: found list"]),
    ],
)
def test_wrong_arguments_of_sample_are_named_with_what_to_call(changes, error, said):
    arguments = {"schedule": single(full), "steps": STEPS["ddpm"], "shape": SHAPE} | changes
    refused(error, *said, call=lambda: samplers.sample(**arguments, start=0, count=4, seed=0))


@pytest.mark.parametrize("make", [samplers.ddpm, samplers.ddim, samplers.dpm_solver_pp])
@pytest.mark.parametrize("schedule", ["linear", 1000, SCHEDULE.alphas_cumprod, None])
def test_what_is_no_noise_schedule_is_refused(make, schedule):
    said = ["schedule: found ", 'noise_schedule("linear") or own_schedule(']
    refused(TypeError, *said, call=lambda: make(schedule, 20))


def test_a_noise_schedule_of_ones_own_is_sampled_and_checked():
    time = (np.arange(T) + 1.008) / (T + 0.008)
    cosine = own_schedule("cosine", np.cos(time * np.pi / 2 * 0.9999) ** 2)
    x = samplers.sample(single(full), samplers.ddim(cosine, 20), SHAPE, 0, 4, seed=0)
    assert x.isfinite().all()
    same = own_schedule("mine", torch.from_numpy(SCHEDULE.alphas_cumprod))
    assert samplers.ddpm(same, 20) == STEPS["ddpm"]
    ab = SCHEDULE.alphas_cumprod
    wrong = {
        "shape (500,); accepted: (1000,)": ab[:500],
        "each smaller than the one before": ab[::-1],
        "to 0 at t = 999": np.linspace(0.999, 0, T),
        "from 1 at t = 0": np.linspace(1, 0.001, T),
        "accepted: each smaller": np.where(np.arange(T) == 5, np.nan, ab),
        "from 0.0001 at t = 0": 1 - np.linspace(0.9999, 0.98, T),  # betas for alphas_cumprod
    }
    for said, values in wrong.items():
        refused(ValueError, said, call=partial(own_schedule, "wrong", values))
        refused(ValueError, said, call=partial(samplers.ddim, NoiseSchedule("wrong", values), 20))


def blocks(heading: str) -> str:
    """The program below a heading of docs/library.md."""
    text = (Path(__file__).parents[2] / "docs/library.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.S)[1]


def test_the_schedule_of_the_page_is_sampled():
    names: dict = {}
    exec(blocks("A noise schedule of your own"), names)
    x = samplers.sample(single(full), names["steps"], SHAPE, 0, 4, seed=0)
    assert len(names["steps"]) == 50
    assert x.isfinite().all()


@pytest.mark.parametrize("good_from", [0, 250, 600, T])
def test_the_t_s_of_the_page_is_where_the_losses_part(good_from):
    def best(x_t, t, y):  # for pixels that are standard normal
        return (1 - SCHEDULE.alphas_cumprod[t[0]]) ** 0.5 * x_t

    def shallow(x_t, t, y):
        return best(x_t, t, y) if t[0] >= good_from else torch.zeros_like(x_t)

    images = torch.randn((64, *SHAPE), generator=torch.Generator().manual_seed(0))
    names = {"full": best, "shallow": shallow, "held_out": images}
    exec(blocks("Choosing t_s for two networks"), names)
    first_bad = max((t for t in timesteps(50) if t < good_from), default=-1)
    if good_from in (0, T):
        assert names["t_s"] == {0: T, T: 0}[good_from]
    else:
        assert names["t_s"] == T - 1 - first_bad
    schedule = duodiff(best, shallow, names["t_s"])
    assert all(t >= good_from for t in timesteps(50) if schedule.at(int(t)) is shallow)


@pytest.mark.slow
def test_the_ten_lines_run_as_written():
    text = (Path(__file__).parents[2] / "docs/library.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(from duodiff import samplers\n.*?)```", text, re.S)[1]
    names = {"full": lambda x, t, y: 0.1 * x, "shallow": lambda x, t, y: 0.2 * x}
    exec(lines, names)
    assert names["images"].shape == (64, 3, 32, 32)
    assert names["images"].isfinite().all()
