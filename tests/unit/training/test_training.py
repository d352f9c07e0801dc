from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from unit.tiny_study import TRAINING, USED

from duodiff.early_exit import AdaDiff
from duodiff.noise import image_noise
from duodiff.protocol import CORRECTED, PAPER
from duodiff.schedules import noise_schedule
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.heads import heads_loss, train_heads
from duodiff.training.loop import TrainingConfig, fit, learning_rate
from duodiff.uvit import Denoiser, UViT

CONFIG = TrainingConfig(
    steps=30,
    batch=8,
    lr=3e-3,
    lr_schedule="cosine",
    betas=(0.9, 0.99),
    weight_decay=0.01,
    warmup_steps=5,
    grad_clip=1.0,
    ema=0.8,
    precision="float32",
)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (13, 3, 6, 6)).astype(np.uint8)
NOISER = Noiser(IMAGES, np.arange(13) % 4, noise_schedule("linear"))


def uvit() -> UViT:
    torch.manual_seed(0)
    return UViT(
        img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=3, num_heads=7, num_classes=4
    )


def test_learning_rate_warms_up_and_decays_to_zero():
    rates = [learning_rate(CONFIG, step) for step in range(CONFIG.steps)]
    assert rates[:6] == pytest.approx([0.0006, 0.0012, 0.0018, 0.0024, 0.003, 0.003])
    assert rates[17] == pytest.approx(0.003 * 0.5 * (1 + np.cos(np.pi * 12 / 25)))
    assert 0 < rates[-1] < 0.02 * CONFIG.lr


def test_the_official_learning_rate_is_constant_after_the_warm_up():
    config = replace(CONFIG, lr_schedule="constant")
    rates = [learning_rate(config, step) for step in range(CONFIG.steps)]
    assert rates[:5] == pytest.approx([0.0006, 0.0012, 0.0018, 0.0024, 0.003])
    assert set(rates[5:]) == {0.003}


def test_flips_mirror_half_of_the_training_images_and_nothing_else():
    flipping = Noiser(IMAGES, np.arange(13) % 4, noise_schedule("linear"), flips=True)
    mirrored = 0
    for step in range(40):
        plain, batch = NOISER.at_step(0, step, 5), flipping.at_step(0, step, 5)
        assert torch.equal(plain.eps, batch.eps)
        assert torch.equal(plain.y, batch.y)
        for a, b in zip(plain.x_0, batch.x_0, strict=True):
            assert torch.equal(a, b) != torch.equal(a.flip(-1), b)
            mirrored += torch.equal(a.flip(-1), b)
    assert 70 < mirrored < 130  # of 200
    assert torch.equal(flipping.stratified(0).x_0, NOISER.stratified(0).x_0)


def test_label_dropout_replaces_a_share_of_the_training_labels_by_the_null_class():
    dropping = Noiser(
        IMAGES, np.arange(13) % 4, noise_schedule("linear"), label_dropout=0.25, null_class=4
    )
    plain = torch.cat([NOISER.at_step(0, step, 10).y for step in range(100)])
    labels = torch.cat([dropping.at_step(0, step, 10).y for step in range(100)])
    assert 200 < (labels == 4).sum() < 300
    assert torch.equal(labels[labels < 4], plain[labels < 4])
    assert (dropping.stratified(0).y < 4).all()


@pytest.mark.parametrize("prediction", ["noise", "x_0", "v"])
def test_the_target_is_what_the_network_predicts(prediction):
    batch = Noiser(IMAGES, None, noise_schedule("linear"), prediction=prediction).at_step(0, 0, 8)
    ab = (
        torch.from_numpy(noise_schedule("linear").alphas_cumprod)[batch.t].view(-1, 1, 1, 1).float()
    )
    v = ab.sqrt() * batch.eps - (1 - ab).sqrt() * batch.x_0
    expected = {"noise": batch.eps, "x_0": batch.x_0, "v": v}[prediction]
    torch.testing.assert_close(batch.target, expected)


def test_latents_are_drawn_from_their_moments_anew_at_each_step():
    mean, log_variance = RNG.standard_normal((2, 13, 2, 2, 4, 4)).astype(np.float16)
    moments = np.concatenate([mean, log_variance], axis=2)  # [N, plain and mirrored, 2C, H, W]
    noiser = Noiser(moments, None, noise_schedule("linear"), scale=0.5)
    assert noiser.shape == (2, 4, 4)
    index, flip = torch.full((4000,), 3), torch.ones(4000, dtype=torch.bool)
    zeros, z = torch.zeros(4000, 2, 4, 4), image_noise(0, 5, 0, 4000, (2, 4, 4))
    drawn = noiser.noised(index, torch.zeros(4000).long(), zeros, z, flip=flip).x_0.numpy()
    np.testing.assert_allclose(drawn.mean(0), 0.5 * mean[3, 1].astype(float), atol=0.12)
    deviation = 0.5 * np.exp(0.5 * log_variance[3, 1].astype(float))
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.06)
    a, b = noiser.at_step(0, 0, 13), noiser.at_step(0, 1, 13)  # one epoch each
    assert not torch.equal(a.x_0.sum(0), b.x_0.sum(0))
    assert torch.equal(a.x_0, noiser.at_step(0, 0, 13).x_0)


def test_bfloat16_autocast_trains_and_keeps_float32_weights():
    model = Denoiser(uvit())
    config = replace(CONFIG, precision="bfloat16", steps=20, batch=13)
    average, curve = fit(
        model,
        list(model.parameters()),
        denoising_loss,
        NOISER,
        NOISER.stratified(1),
        config=config,
        seed=0,
    )
    assert all(p.dtype == torch.float32 for p in average.parameters())
    assert curve[-1]["held_out_loss"] < curve[0]["held_out_loss"]


@pytest.mark.parametrize("rules", [None, CORRECTED, PAPER])
def test_a_batch_in_parts_trains_as_a_whole_one(rules):
    """Backbones, and heads under both protocols: one of them sums a loss over the batch."""
    found = []
    for accumulate in (1, 4):
        net = uvit()
        model, loss = Denoiser(net), denoising_loss
        if rules is not None:
            net.requires_grad_(False)
            model, loss = AdaDiff(net), partial(heads_loss, time_convention="t", protocol=rules)
        parameters = [p for p in model.parameters() if p.requires_grad]
        config = replace(CONFIG, accumulate=accumulate, steps=8)
        _, curve = fit(model, parameters, loss, NOISER, NOISER.stratified(1), config=config, seed=0)
        found.append([(entry["train_loss"], entry["held_out_loss"]) for entry in curve])
    assert len(found[0]) == 8
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_batches_are_a_function_of_seed_and_step():
    a, b = (NOISER.at_step(seed=1, step=9, batch=8) for _ in range(2))
    for name in ("x_0", "x_t", "t", "eps", "y"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    for other in (NOISER.at_step(2, 9, 8), NOISER.at_step(1, 10, 8)):
        assert not torch.equal(a.eps, other.eps)


def test_an_epoch_visits_every_image_once():
    drawn = torch.cat([NOISER.at_step(0, step, 5).x_0 for step in range(13)])  # five epochs of 13
    for epoch in drawn.split(13):
        assert len(epoch.flatten(1).unique(dim=0)) == 13


def test_noised_images_follow_equation_1():
    batch = NOISER.at_step(0, 0, 8)
    ab = torch.from_numpy(noise_schedule("linear").alphas_cumprod)[batch.t].view(-1, 1, 1, 1)
    x_t = ab.sqrt() * batch.x_0.double() + (1 - ab).sqrt() * batch.eps.double()
    torch.testing.assert_close(batch.x_t.double(), x_t, atol=1e-6, rtol=0)
    assert batch.x_0.abs().max() <= 1


def test_the_validation_batch_covers_all_t_evenly():
    batch = NOISER.stratified(0)
    assert sorted(batch.t.tolist()) == np.linspace(0, 999, 13).astype(int).tolist()


def test_fit_lowers_the_loss_repeats_itself_and_averages_the_weights():
    def run():
        model = Denoiser(uvit())
        before = {k: v.clone() for k, v in model.state_dict().items()}
        average, curve = fit(
            model,
            list(model.parameters()),
            denoising_loss,
            NOISER,
            NOISER.stratified(1),
            config=CONFIG,
            seed=0,
        )
        return before, model.state_dict(), average.state_dict(), curve

    before, after, average, curve = run()
    assert curve[-1]["held_out_loss"] < curve[0]["held_out_loss"]
    assert curve[-1]["step"] == CONFIG.steps
    name = "net.mid_block.mlp.fc1.weight"
    assert not torch.equal(after[name], before[name])
    assert not torch.equal(after[name], average[name])
    _, again, _, _ = run()
    assert all(torch.equal(after[k], again[k]) for k in after)


@pytest.mark.parametrize("protocol", [CORRECTED, PAPER], ids=lambda p: p.name)
def test_output_heads_are_copied_from_the_backbone_where_the_protocol_says_so(
    protocol, paths, data, tmp_path, monkeypatch
):
    def begun(model, *arguments, **options):
        raise InterruptedError(model)

    monkeypatch.setattr("duodiff.training.heads.fit", begun)
    out = tmp_path / "heads/manifest.json"
    with pytest.raises(InterruptedError) as begin:
        train_heads(
            data, paths["full"], USED, TRAINING, protocol.name, seed=0, device="cpu", out=out
        )
    model = begin.value.args[0]
    own = model.uvit.decoder_pred.weight
    copied = [torch.equal(head.decoder_pred.weight, own) for head in model.output_heads]
    assert copied == [protocol.name == "corrected"] * model.uvit.depth


@pytest.mark.parametrize("protocol", [CORRECTED, PAPER], ids=lambda p: p.name)
def test_training_the_heads_leaves_the_backbone_untouched(protocol):
    model = AdaDiff(uvit(), protocol.timestep_aware_uncertainty)
    model.uvit.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def loss(model, batch):
        return heads_loss(model, batch, "t", protocol)

    average, curve = fit(
        model, model.heads_parameters(), loss, NOISER, NOISER.stratified(1), config=CONFIG, seed=0
    )
    for state in (model.state_dict(), average.state_dict()):
        for key, value in state.items():
            if "nan_count" not in key:
                assert torch.equal(value, before[key]) == key.startswith("uvit."), key
    assert curve[-1]["held_out_loss"] < curve[0]["held_out_loss"]
