"""Numerical parity with tests/goldens (its README says what each file is and where it comes from)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from duodiff import samplers
from duodiff.backbones import duodiff, one_call_late, single
from duodiff.early_exit import (
    AdaDiff,
    exit_layers,
    layer_errors,
    layerwise_loss,
    uncertainty_loss,
    uncertainty_target,
)
from duodiff.schedules import noise_schedule, time_input, timesteps
from duodiff.uvit import UViT

GOLDENS = Path(__file__).parents[1] / "goldens"
LINEAR = noise_schedule("linear")


def golden(name: str, device: str = "cpu") -> dict:
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]).to(device) for key in arrays.files}


def state_dict(arrays: dict, prefix: str = "sd/") -> dict:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


# --- schedules


@pytest.mark.parametrize("name", ["linear", "sd"])
def test_schedule_betas_and_alphas_cumprod(name):
    g, schedule = golden("schedules"), noise_schedule(name)
    np.testing.assert_allclose(schedule.alphas_cumprod, g[f"{name}_alphas_bar"], rtol=1e-12)
    np.testing.assert_allclose(schedule.betas, g[f"{name}_betas"], rtol=1e-9)


def test_linear_posterior_variance_and_released_float32_values():
    g = golden("schedules")
    np.testing.assert_allclose(LINEAR.betas_tilde, g["linear_betas_tilde"], rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(LINEAR.alphas_cumprod, g["ref_f32_alphas_bar"], rtol=5e-7)


def test_vpsde_schedule_and_its_distance_to_linear():
    g, vpsde = golden("schedules"), noise_schedule("vpsde")
    np.testing.assert_allclose(vpsde.alphas_cumprod, g["vpsde_cum_alpha"], rtol=1e-12)
    assert np.abs(vpsde.alphas_cumprod - LINEAR.alphas_cumprod).max() < 8.2e-4


# --- the network


def uvit_uncond():
    return UViT(
        img_size=16, patch_size=2, in_chans=3, embed_dim=64, depth=5, num_heads=4, qkv_bias=False
    )


def test_unconditional_uvit(device):
    g, net = golden("uvit_uncond_depth4", device), uvit_uncond().to(device)
    net.load_state_dict(state_dict(g))
    torch.testing.assert_close(net(g["x"], g["t"]), g["out"], atol=2e-5, rtol=0)


def test_unconditional_uvit_activations(device):
    g, net = golden("uvit_uncond_depth4", device), uvit_uncond().to(device)
    net.load_state_dict(state_dict(g))
    tokens, skips = net.embed(g["x"], net.embed_time(g["t"])), []
    names = ["tokens_in", "in_blocks.0", "in_blocks.1", "mid_block", "out_blocks.0", "out_blocks.1"]
    for i, name in enumerate(names):
        torch.testing.assert_close(tokens[0], g[f"act/{name}"], atol=2e-5, rtol=0)
        if i < net.depth:
            tokens = net.run_block(i, tokens, skips)
    torch.testing.assert_close(net.norm(tokens)[0], g["act/norm"], atol=2e-5, rtol=0)


def test_uvit_without_final_convolution(device):
    g = golden("uvit_noconv_depth2", device)
    net = UViT(
        img_size=16, patch_size=2, in_chans=3, embed_dim=64, depth=3, num_heads=4, conv=False
    )
    net.to(device).load_state_dict(state_dict(g))
    torch.testing.assert_close(net(g["x"], g["t"]), g["out"], atol=2e-5, rtol=0)


# --- early exit


@pytest.fixture
def released_adadiff(device) -> tuple[AdaDiff, dict]:
    g = golden("early_exit_mlp_per_layer_depth3", device)
    uvit = UViT(img_size=8, patch_size=2, in_chans=3, embed_dim=32, depth=3, num_heads=4)
    model = AdaDiff(uvit, timestep_aware=False)
    names = {"matrix.{}.classifier.0": "uncertainty_heads.{}.linear"}
    heads = ["in_blocks_heads.0", "mid_block_head", "out_blocks_heads.0"]
    weights = {}
    for key, value in state_dict(g).items():
        for i, head in enumerate(heads):
            key = key.replace(f"{head}.", f"output_heads.{i}.")
            for theirs, ours in names.items():
                key = key.replace(theirs.format(i), ours.format(i))
        weights[key] = value
    model.load_state_dict(weights)
    return model.to(device), g


def test_early_exit_layers_and_outputs(released_adadiff):
    model, g = released_adadiff
    t = time_input("t/1000", g["t"])
    full, u, heads = model.all_layers(g["x"], t)
    torch.testing.assert_close(full, g["out"], atol=2e-5, rtol=0)
    torch.testing.assert_close(u, g["uem"], atol=2e-5, rtol=0)
    torch.testing.assert_close(heads, g["heads"], atol=2e-5, rtol=0)
    for k, theta in enumerate(g["thetas"].tolist()):
        assert torch.equal(exit_layers(u, theta), g["exit_idx"][k])
        for run in (model, model.simulate_exit):
            eps, exits = run(g["x"], t, None, theta)
            assert torch.equal(exits, g["exit_idx"][k])
            torch.testing.assert_close(eps, g[f"exit_out_{k}"], atol=2e-5, rtol=0)


def test_early_exit_losses_in_both_forms(released_adadiff):
    model, g = released_adadiff
    full, u, heads = model.all_layers(g["x"], time_input("t/1000", g["t_train"]))
    u_hat, errors = uncertainty_target(heads, g["eps"]), layer_errors(heads, g["eps"])
    loss_u = {
        "L_u_ref": uncertainty_loss(u, u_hat, detach=False, sum_batch=True),
        "L_u_batchmean_detached": uncertainty_loss(u, u_hat, detach=True, sum_batch=False),
    }
    loss_ual = {
        "L_ual_ref": layerwise_loss(errors, u, u_hat, weight="target"),
        "L_ual_paper_pred_u": layerwise_loss(errors, u, u_hat, weight="prediction"),
        "L_unweighted_ref": errors.sum(0).mean(),
        "L_simple": layer_errors(full[None], g["eps"]).mean(),
    }
    torch.testing.assert_close(u, g["uem_train"], atol=2e-5, rtol=0)
    torch.testing.assert_close(u_hat, g["u_hat_train"], atol=2e-5, rtol=0)
    torch.testing.assert_close(errors, g["layer_mse_train"], atol=2e-5, rtol=1e-5)
    for name, value in {**loss_u, **loss_ual}.items():
        torch.testing.assert_close(value, g[name], atol=2e-5, rtol=1e-5, msg=name)


# --- samplers, on the analytic models of the goldens


def model_s(x, t, y):
    return 0.1 * x * (t / 1000).view(-1, 1, 1, 1)


def model_d(x, t, y):
    return 0.2 * x * (t / 1000).view(-1, 1, 1, 1)


def model_iso(x, t, y):
    return (1 - LINEAR.alphas_cumprod[int(t[0])]) ** 0.5 * x


@pytest.fixture
def g(device) -> dict:
    return golden("samplers", device)


def run(g, schedule, steps, quiet_at=()):
    """The trajectory in float64 under the golden noise: {t: x after the step at t}, and the end."""
    after, x = {}, g["x_T"].double()

    def noise(t):
        return torch.zeros_like(x) if t in quiet_at else g["z"][t].double()

    for step in steps:
        x = samplers.integrate(schedule, [step], x, None, noise)
        after[step.t] = x
    return after, x


def close(actual, expected, rtol=1e-9):
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, atol=rtol * scale, rtol=0)


def test_ddpm(g):
    after, x = run(g, single(model_s), samplers.ddpm(LINEAR, 1000))
    close(x, g["ddpm_x0"])
    for t in (999, 900, 750, 500, 250, 100, 1, 0):
        close(after[t], g[f"ddpm_after_t{t}"])
    close(x, g["ddpm_x0_ref_f32"].double(), rtol=1e-5)


def test_ddpm_iso(g):
    after, x = run(g, single(model_iso), samplers.ddpm(LINEAR, 1000))
    close(x, g["iso_ddpm_x0"])
    close(after[500], g["iso_ddpm_after_t500"])


@pytest.mark.parametrize("t_s", [0, 1, 300, 999, 1000])
def test_duodiff_ddpm(g, t_s):
    _, x = run(g, duodiff(full=model_d, shallow=model_s, t_s=t_s), samplers.ddpm(LINEAR, 1000))
    close(x, g[f"duo_ddpm_ts{t_s}_x0"])


def test_ddim_timesteps(g):
    assert timesteps(50).tolist() == g["ddim_timesteps"].tolist()


def test_ddim_stops_at_zero_in_the_paper_protocol_and_at_x0_in_the_corrected(g):
    for model, prefix in ((model_s, ""), (model_iso, "iso_")):
        paper = samplers.ddim(LINEAR, 50, final_step=False)
        corrected = samplers.ddim(LINEAR, 50)
        assert (len(paper), len(corrected)) == (49, 50)
        after, x = run(g, single(model), paper)
        close(x, g[f"{prefix}ddim50_eta0_x"])
        _, x = run(g, single(model), corrected)
        close(x, g[f"{prefix}ddim50_eta0_with_final_x0_step"])
    after, _ = run(g, single(model_s), samplers.ddim(LINEAR, 50, final_step=False))
    grid = timesteps(50).tolist()
    for s in (978, 509, 20, 0):
        close(after[grid[grid.index(s) - 1]], g[f"ddim50_eta0_at_s{s}"])


def test_ddim_eta_1_is_respaced_ddpm_and_matches_the_golden(g):
    ddim_steps, ddpm_steps = samplers.ddim(LINEAR, 50, eta=1.0), samplers.ddpm(LINEAR, 50)
    _, x_ddim = run(g, single(model_s), ddim_steps)
    _, x_ddpm = run(g, single(model_s), ddpm_steps)
    close(x_ddim, x_ddpm, rtol=1e-10)
    # the golden injects no noise on the step that lands on s = 0
    after, _ = run(g, single(model_s), ddpm_steps, quiet_at=[20])
    close(after[20], g["ddim50_eta1_correct_sigma"])


@pytest.mark.parametrize(
    ("t_s", "exact_calls", "late_calls"), [(150, 8, 9), (200, 10, 11), (300, 15, 16)]
)
def test_duodiff_ddim_switch_rules(g, t_s, exact_calls, late_calls):
    steps = samplers.ddim(LINEAR, 50, final_step=False)
    late = one_call_late(t_s, timesteps(50).tolist())
    for rule, used, calls in (("exact", t_s, exact_calls), ("ref_rule", late, late_calls)):
        schedule = duodiff(full=model_d, shallow=model_s, t_s=used)
        assert sum(schedule.at(step.t) is model_s for step in steps) == calls
        _, x = run(g, schedule, steps)
        close(x, g[f"duo_ddim50_ts{t_s}_{rule}"])
