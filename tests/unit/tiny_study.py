"""A study of barely trained networks: what the tests of sampling and of metrics share."""

from duodiff.sampling.models import Models
from duodiff.training.backbone import train_backbone

NET = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "num_heads": 3,
    "num_classes": 10,
}
TRAINING = {
    "steps": 4,
    "batch": 8,
    "lr": 1e-3,
    "lr_schedule": "cosine",
    "betas": [0.9, 0.99],
    "weight_decay": 0.0,
    "warmup_steps": 1,
    "grad_clip": 1.0,
    "ema": 0.5,
    "precision": "float32",
    "flips": False,
}
BACKBONE_TRAINING = TRAINING | {"init": "official", "label_dropout": 0}
DDPM = {"name": "ddpm", "steps": 10}
DPM_SOLVER = {"name": "dpm_solver_pp", "steps": 10}
STUDY = {"experiment": "digits", "train_seed": 0}
USED = {"schedule": "linear", "time_input": "t"}
CONVENTIONS = USED | {"prediction": "noise"}


def train(data, changes, out, training=BACKBONE_TRAINING, null_class=False):
    """A backbone like NET but for `changes`, barely trained."""
    return train_backbone(
        data, NET | changes, CONVENTIONS, null_class, training, seed=0, device="cpu", out=out
    )


def loaded(paths, protocol="corrected", **conventions) -> Models:
    return Models(USED | conventions, protocol, **paths)
