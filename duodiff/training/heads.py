"""Training AdaDiff's heads on a frozen backbone (Eq. 8)."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from duodiff import checkpoints
from duodiff.early_exit import (
    AdaDiff,
    layer_errors,
    layerwise_loss,
    uncertainty_loss,
    uncertainty_target,
)
from duodiff.identity import code_digest
from duodiff.protocol import PROTOCOLS, Protocol
from duodiff.running import compiling, provenance
from duodiff.running.files import write_csv
from duodiff.schedules import time_input
from duodiff.training import devices
from duodiff.training.backbone import noisers
from duodiff.training.batches import Batch
from duodiff.training.loop import TrainingConfig, fit
from duodiff.training.state import Saves


def heads_loss(model: AdaDiff, batch: Batch, time_convention: str, protocol: Protocol) -> Tensor:
    """lambda L_u + beta L_UAL with lambda = beta = 1 (Eq. 8), a scalar; the frozen backbone has no L_simple.

    The heads have the backbone's training target: the noise, or batch.target for another prediction.
    """
    with torch.no_grad():
        layers, time_emb = model.layer_inputs(
            batch.x_t, time_input(time_convention, batch.t), batch.y
        )
    u, g = model.evaluate_heads(layers, time_emb)
    u_hat, errors = uncertainty_target(g, batch.target), layer_errors(g, batch.target)
    sum_batch = protocol.sum_uncertainty_loss_over_batch
    l_u = uncertainty_loss(u, u_hat, detach=protocol.detach_uncertainty_target, sum_batch=sum_batch)
    if sum_batch:
        l_u = l_u * batch.parts  # their mean is then the sum over the whole batch
    return l_u + layerwise_loss(errors, u, u_hat, weight=protocol.layer_loss_weight)


def train_heads(
    data: Path,
    backbone: Path,
    conventions: dict,
    training: dict,
    protocol: str,
    *,
    seed: int,
    device: str,
    out: Path,
    monitor: Path | None = None,
) -> list[dict]:
    """Loss curve of AdaDiff's heads on a frozen backbone, written with their checkpoint at `out`.

    `conventions` are the configured schedule and time_input, `monitor` the folder to follow the training in
    (`duodiff.training.monitor`). Raises ValueError if the backbone was trained with other conventions and
    the protocol holds it to them. An interrupted training is continued.
    """
    rules = PROTOCOLS[protocol]
    full, trained = checkpoints.load_backbone(backbone, **conventions)
    departures = checkpoints.departures({"full": trained}, conventions, rules)
    options = dict(training)
    flips = options.pop("flips")
    torch.manual_seed(seed)
    aware, copied = rules.timestep_aware_uncertainty, rules.copy_output_heads
    model = AdaDiff(full.net, aware, copied).to(device)
    model.uvit.requires_grad_(False)
    dataset, train, held_out = noisers(
        data, full, conventions["schedule"], device, trained.null_class, flips=flips
    )
    watch = None
    if monitor is not None:
        from duodiff.training.monitor import Monitor  # takes a second, for trainings alone

        watch = Monitor(monitor, training["steps"])
    manifest = checkpoints.HeadsManifest(
        backbone_sha256=trained.weights_sha256,
        timestep_aware=rules.timestep_aware_uncertainty,
        protocol=protocol,
        **conventions,
        class_order=dataset.get("class_order"),
        training=training,
        seed=seed,
        dataset_sha256=dataset.get("moments_sha256", dataset["images_sha256"]),
        departures=departures,
    )
    described = checkpoints.as_json(manifest)
    code = code_digest(train_heads, described)
    saves = Saves(out, {"checkpoint": described, "dataset": dataset, "code": code})
    average, curve = fit(
        model,
        model.heads_parameters(),
        compiling.faster(
            partial(heads_loss, time_convention=full.time_input, protocol=rules),
            device,
            training["precision"],
        ),
        train,
        held_out.stratified(seed),
        config=TrainingConfig(**options),
        seed=seed,
        name="train heads",
        watch=watch,
        saves=saves,
    )
    if not devices.is_first():
        return curve
    write_csv(Path(out).parent / "curve.csv", curve)
    made = provenance.made(code, device, of={"full": trained.made})
    manifest = replace(manifest, skipped_steps=curve[-1]["skipped_steps"], made=made)
    weights = {k: v for k, v in average.state_dict().items() if not k.startswith("uvit.")}
    checkpoints.save(out, weights, manifest)
    saves.clear()
    return curve
