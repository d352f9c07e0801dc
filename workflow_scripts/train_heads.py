from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.training import devices
    from duodiff.training.heads import train_heads as train


def train_heads(
    data: Path,
    backbone: Path,
    conventions: dict,
    training: dict,
    protocol: str,
    seed: int,
    device: str,
    out: Path,
    monitor: Path | None = None,
) -> str:
    """Train AdaDiff's heads on a frozen backbone. Writes model.safetensors and curve.csv beside the manifest --out.

    --data and --backbone are manifests. --training is the JSON of `heads_training` in the configuration. --conventions
    is JSON of schedule and time_input. --monitor is a folder for TensorBoard events and progress.png.
    """
    with devices.joined(device):
        curve = train(
            data,
            backbone,
            conventions,
            training,
            protocol,
            seed=seed,
            device=device,
            out=out,
            monitor=monitor,
        )
    return f"{training['steps']} steps, held-out loss {curve[-1]['held_out_loss']:.4f}"


if __name__ == "__main__":
    job.run(train_heads)
