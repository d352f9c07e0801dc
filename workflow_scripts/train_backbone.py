from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.training import devices
    from duodiff.training.backbone import train_backbone as train


def train_backbone(
    data: Path,
    architecture: dict,
    conventions: dict,
    null_class: bool,
    training: dict,
    seed: int,
    device: str,
    out: Path,
    monitor: Path | None = None,
) -> str:
    """Train one U-ViT on all timesteps. Writes model.safetensors and curve.csv beside the manifest --out.

    --architecture and --training are the JSON of the network and of `backbone_training` in the configuration.
    --conventions is JSON of schedule, time_input and prediction. --monitor is a folder for TensorBoard events and
    progress.png.
    """
    with devices.joined(device):
        curve = train(
            data,
            architecture,
            conventions,
            null_class,
            training,
            seed=seed,
            device=device,
            out=out,
            monitor=monitor,
        )
    return f"{training['steps']} steps, held-out loss {curve[-1]['held_out_loss']:.4f}"


if __name__ == "__main__":
    job.run(train_backbone)
