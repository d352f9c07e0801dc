"""Made results of several trainings, as a run leaves them: what the tests of the shipped study share."""

from pathlib import Path

import numpy as np
import yaml

from duodiff import records
from duodiff.records import Record
from duodiff.running.files import write_text

ROOT = Path(__file__).parents[3]
SHARES = {"t_s=300": 0.0, "t_s=500": 0.02, "t_s=700": 0.1}
SETTINGS = {
    "t_s=0": ("full", {"t_s": 0}),
    **{s: ("duodiff", {"t_s": int(s[4:])}) for s in SHARES},
    "t_s=1000": ("shallow", {"t_s": 1000}),
}
SPEED_UPS = {"t_s=300": 1.2, "t_s=500": 1.4, "t_s=700": 1.6, "t_s=1000": 2.0}
SPEED_UPS |= {"theta=q0.25": 1.2, "theta=q0.4": 1.5}
QUANTILES = {"q0.25": (0.12, 0.3, 5.0), "q0.4": (0.17, 1.0, 4.0)}
MADE = {"code": "c", "device": "A processor", "kernels": "AVX512", "libraries": {"torch": "2.1"}}


def training(seed: int, made: dict = MADE, kernels: float = 0.0) -> list[Record]:
    """The records of one training: its numbers vary by some percent over trainings, and by `kernels` of it besides."""
    rng = np.random.default_rng([7, seed])
    moved = np.random.default_rng([8, seed])

    def around(value: float, spread: float = 0.03) -> float:
        by = rng.standard_normal() + kernels * moved.standard_normal()
        return float(value * np.exp(spread * by))

    def record(metric, value, method, parameters, sampler="ddpm", **more):
        seeds = {"train_seed": seed, "sample_seed": 1000 * seed}
        about = {"sampler": sampler, "steps": 50, "nfe": 50, "seeds": seeds, "made": made}
        about |= {"parameters": parameters, "n": 96, "unit": "1"} | more
        if metric == "speedup":
            about |= {"interval": [0.99 * value, 1.01 * value], "interval_covers": "rounds"}
        return Record(
            metric=metric,
            value=value,
            experiment="digits",
            protocol="corrected",
            method=method,
            **about,
        )

    full = around(10.0)
    whole = around(10.0)
    distances = {"t_s=0": full, "t_s=1000": full + whole}
    distances |= {
        s: full + whole * (share + 0.01 * rng.standard_normal()) for s, share in SHARES.items()
    }
    found = [
        Record("fd_digits", 200.0, "1", 96, "digits", "corrected", "noise", made=made),
        record("gflops_per_call", 10.0, "full", {}),
        record("gflops_per_call", 4.0, "shallow", {}),
        record("speedup", around(0.9, 0.005), "adadiff_all_heads", {}),
        record("seconds_per_image", 0.011, "adadiff_all_heads", {}),
        record("fd_digits", 500.0, "noise", {}, None, seeds={}),
    ]
    settings = [(name, *SETTINGS[name], distances[name]) for name in SETTINGS]
    for quantile, (theta, share, layer) in QUANTILES.items():
        parameters = {"theta": around(theta), "setting": quantile, "depth": 7}
        distance = full + whole * around(share, 0.1)
        settings.append((f"theta={quantile}", "adadiff", parameters, distance))
        found.append(record("mean_exit_layer", around(layer), "adadiff", parameters))
    for name, method, parameters, distance in settings:
        found.append(record("fd_digits", distance, method, parameters))
        if method != "full":
            difference = {"interval": [distance - full - 0.1, distance - full + 0.1]}
            value = distance - full
            found.append(record("fd_digits_difference", value, method, parameters, **difference))
        found.append(record("label_agreement", around(0.9, 0.01), method, parameters))
        ratio = 1.0 if method == "full" else around(SPEED_UPS[name], 0.005)
        found.append(record("speedup", ratio, method, parameters))
        found.append(record("seconds_per_image", 0.01 / ratio, method, parameters))
    return found


def config(seeds: list[int]) -> dict:
    """The configuration of the made results."""
    text = (ROOT / "config/config.yaml").read_text(encoding="utf-8")
    default = yaml.safe_load(text)
    digits = default["experiments"]["digits"] | {"train_seeds": seeds}
    found = {"claims": default["claims"], "experiments": {"digits": digits}}
    return found | {"datasets": {"digits": default["datasets"]["digits"]}}


def write_run(results: Path, trainings: dict[int, list[Record]]) -> Path:
    """Writes the records of trainings as a run leaves them, in the folder `results`, which is returned."""
    for seed, found in trainings.items():
        timed = [
            r for r in found if r.metric in ("speedup", "seconds_per_image", "gflops_per_call")
        ]
        folder = results / f"digits/train{seed}/records"
        records.write(folder / "evaluate_samples.json", [r for r in found if r not in timed])
        records.write(folder / "measure_latency.json", timed)
    write_text(results / "run/configuration.yaml", yaml.safe_dump(config([*trainings])))
    return results
