from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.training.autoencoder import train_autoencoder as train


def train_autoencoder(
    data: Path,
    architecture: dict,
    training: dict,
    device: str,
    out: Path,
    monitor: Path | None = None,
) -> str:
    """Train a KL autoencoder on a store's training images. Writes its files as diffusers does; --out is config.json.

    --architecture and --training are the JSON of the configuration's autoencoder.architecture and autoencoder.train.
    --monitor is a folder for TensorBoard events and progress.png.

    Example: python workflow_scripts/train_autoencoder.py --data results/data/digits_latent/manifest.json \\
               --architecture '{"latent_channels": 4, "block_out_channels": [32, 64], "layers_per_block": 1,
                 "norm_num_groups": 8}' --training '{"steps": 1000, "batch": 64, "lr": 2e-3, "kl_weight": 1e-6}' \\
               --device cpu --out results/data/digits_latent/autoencoder/config.json
    """
    result = train(data, architecture, training, device, out, monitor=monitor)
    return (
        f"{training['steps']} steps, held-out reconstruction rms {result['rms']:.4f} (of [-1, 1]),"
        f" scale {result['scale']:.4f}"
    )


if __name__ == "__main__":
    job.run(train_autoencoder)
