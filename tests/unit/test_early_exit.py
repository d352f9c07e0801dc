import pytest
import torch

from duodiff.early_exit import (
    AdaDiff,
    exit_layers,
    layer_errors,
    layerwise_loss,
    uncertainty_loss,
    uncertainty_target,
)
from duodiff.uvit import UViT

N, B = 5, 11
NAN = float("nan")


@pytest.fixture(params=[True, False], ids=["timestep-aware", "not timestep-aware"])
def model(request, device) -> AdaDiff:
    """AdaDiff whose samples exit at different layers."""
    torch.manual_seed(1)
    uvit = UViT(
        img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=N, num_heads=7, num_classes=4
    )
    model = AdaDiff(uvit, timestep_aware=request.param)
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return model.eval().to(device)


@pytest.fixture
def inputs(device) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    given = torch.randn(B, 3, 6, 6), torch.full((B,), 700), torch.arange(B) % 4
    return tuple(values.to(device) for values in given)


def test_exit_rule_by_hand():
    u = torch.tensor([[0.3, 0.5, 0.9, NAN], [0.1, 0.2, 0.8, 0.2], [0.0, 0.2, 0.7, 0.9]])
    assert exit_layers(u, 0.2).tolist() == [1, 1, 3, 1]
    assert exit_layers(u, 0.5).tolist() == [0, 0, 3, 1]  # equal to theta exits, NaN does not
    assert exit_layers(u, 0.0).tolist() == [3, 3, 3, 3]  # even where u has underflowed to 0
    assert exit_layers(u, 1.0).tolist() == [0, 0, 0, 1]


def test_all_nan_never_exits_and_is_counted(model, inputs):
    model.uncertainty_heads[2].linear.bias.data.fill_(NAN)
    for run in (model, model.simulate_exit):
        model.nan_count.zero_()
        _, exits = run(*inputs, 0.01)
        assert (exits == N).all()
        assert model.nan_count == B


def test_theta_0_is_the_full_network_and_theta_1_runs_no_block(model, inputs):
    x, t, y = inputs
    full = model.uvit(x, t, y)
    embedded = model.uvit.embed(x, model.uvit.embed_time(t), y)
    head_0 = model.output_heads[0](embedded, model.uvit)
    for run in (model, model.simulate_exit):
        eps, exits = run(*inputs, 0.0)
        assert (exits == N).all()
        assert torch.equal(eps, full)
        eps, exits = run(*inputs, 1.0)
        assert (exits == 0).all()
        torch.testing.assert_close(eps, head_0)


def test_shrinking_batch_equals_simulated_exit(model, inputs):
    _, u, _ = model.all_layers(*inputs)
    seen = set()
    for theta in torch.linspace(u.min(), u.max(), 13).tolist():
        clear = ((u - theta).abs() > 1e-5).all(0)
        eps, exits = model(*inputs, theta)
        eps_simulated, exits_simulated = model.simulate_exit(*inputs, theta)
        assert torch.equal(exits[clear], exits_simulated[clear])
        torch.testing.assert_close(eps[clear], eps_simulated[clear], atol=1e-5, rtol=0)
        seen |= set(exits.tolist())
    assert len(seen) >= 4  # samples left at several layers


def test_uncertainty_sees_the_time_only_when_timestep_aware(model, device):
    tokens = torch.randn(B, 5, 14, device=device)
    early, late = (model.uvit.embed_time(torch.full((B,), t, device=device)) for t in (3, 700))
    head = model.uncertainty_heads[0]
    assert torch.equal(head(tokens, early), head(tokens, late)) != head.timestep_aware


def test_output_heads_start_as_the_backbones_own():
    uvit = UViT(img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=N, num_heads=7)
    tokens = torch.randn(2, 10, 14)
    for head in AdaDiff(uvit).output_heads:
        assert torch.equal(head(tokens, uvit), uvit.decode(tokens))


def test_output_heads_of_the_released_code_start_from_pytorchs_default():
    uvit = UViT(img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=N, num_heads=7)
    heads = AdaDiff(uvit, copy_output_heads=False).output_heads
    for head in heads:
        assert not torch.equal(head.decoder_pred.weight, uvit.decoder_pred.weight)
        # nn.Linear's default: uniform, up to one over the root of the inputs
        assert 0.9 * 14**-0.5 < head.decoder_pred.weight.abs().max() <= 14**-0.5
        assert head.decoder_pred.bias.abs().max() > 0
    assert not torch.equal(heads[0].decoder_pred.weight, heads[1].decoder_pred.weight)


# --- losses: u and g are leaves here, so each loss shows whom it trains


@pytest.fixture
def leaves():
    torch.manual_seed(3)
    u = torch.rand(N, B, dtype=torch.double, requires_grad=True)
    g = torch.randn(N, B, 2, 3, 7, dtype=torch.double, requires_grad=True)
    return u, g, torch.randn(B, 2, 3, 7, dtype=torch.double)


def grads(loss, u, g):
    return torch.autograd.grad(loss, (u, g), allow_unused=True)


def test_uncertainty_loss_trains_u_only_and_its_gradient_is_2_u_minus_u_hat(leaves):
    u, g, eps = leaves
    u_hat = uncertainty_target(g, eps)
    du, dg = grads(uncertainty_loss(u, u_hat, detach=True, sum_batch=False), u, g)
    torch.testing.assert_close(du, 2 * (u - u_hat) / B)
    assert dg is None
    du_sum, dg = grads(
        uncertainty_loss(u, uncertainty_target(g, eps), detach=False, sum_batch=True), u, g
    )
    torch.testing.assert_close(du_sum, B * du)
    assert dg.abs().sum() > 0  # the released code lets it reach the heads


def test_layerwise_loss_trains_the_heads_only_in_the_corrected_form(leaves):
    u, g, eps = leaves

    def gradients(weight):
        u_hat, errors = uncertainty_target(g, eps), layer_errors(g, eps)
        return grads(layerwise_loss(errors, u, u_hat, weight=weight), u, g)

    du, dg = gradients("prediction")
    size = g[0, 0].numel()
    expected = (1 - u.detach())[..., None, None, None] * 2 * (g - eps) / size / B
    assert du is None
    torch.testing.assert_close(dg, expected)
    du, dg_literal = gradients("literal")
    torch.testing.assert_close(du, -layer_errors(g, eps) / B)  # pushes u up by the squared error
    torch.testing.assert_close(dg_literal, expected)
    du, dg_target = gradients("target")
    assert du is None
    assert not torch.allclose(dg_target, expected)


def test_losses_sum_over_layers_and_average_over_the_batch():
    u, u_hat, errors = torch.full((N, B), 0.5), torch.full((N, B), 0.2), torch.full((N, B), 2.0)
    mean = uncertainty_loss(u, u_hat, detach=True, sum_batch=False)
    assert mean == pytest.approx(N * 0.09)
    assert uncertainty_loss(u, u_hat, detach=True, sum_batch=True) == pytest.approx(N * B * 0.09)
    assert layerwise_loss(errors, u, u_hat, weight="prediction") == pytest.approx(N * 1.0)
    assert layerwise_loss(errors, u, u_hat, weight="target") == pytest.approx(N * 1.6)
