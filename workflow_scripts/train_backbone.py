from pathlib import Path

from duodiff import job
from duodiff.training.backbone import train_backbone as train


def train_backbone(
    data: Path,
    architecture: dict,
    schedule: str,
    time_input: str,
    training: dict,
    seed: int,
    device: str,
    out: Path,
) -> str:
    """Train one U-ViT on all timesteps; writes model.safetensors and curve.csv beside the manifest --out.

    --architecture and --training are the JSON of those sections of the configuration.
    """
    curve = train(data, architecture, schedule, time_input, training, seed, device, out)
    return f"{training['steps']} steps, held-out loss {curve[-1]['held_out_loss']:.4f}"


if __name__ == "__main__":
    job.run(train_backbone)
