"""The networks that Figures 3, 6 and 7 draw, and their parts as a table, from describe_architectures (no torch)."""

import pandas as pd

from duodiff.paper import PAPER_TITLES

_COLUMNS = ["role", "part", "kind", "in", "out", "parameters"]


def drawn(described: dict, studies: dict) -> tuple[str, dict]:
    """Title and networks that the diagrams show: of the first study that has AdaDiff, else of the paper's first."""
    for name, study in studies.items():
        if "adadiff" in described["studies"][name]:
            return study["title"], described["studies"][name]
    name, networks = next(iter(described["paper"].items()))
    return PAPER_TITLES[name], networks


def parts(networks: dict, roles: list[str]) -> pd.DataFrame:
    """The parts of the drawn networks in the order they run: role, part, kind, sizes in and out, parameters."""
    rows = []
    for role in roles:
        network = networks[role]
        stages = network.get("stages", network.get("output_head"))
        rows += [{"role": role, "part": stage["name"]} | stage for stage in stages]
        for i, pair in enumerate(network.get("heads", [])):
            for kind, head in pair.items():
                about = {"part": f"{kind} head {i}", "kind": f"before block {head['layer']}"}
                rows.append({"role": role, "parameters": head["parameters"]} | about)
        for name, shape in network.get("uncertainty_head", {}).get("operations", []):
            rows.append({"role": role, "part": "uncertainty", "kind": name, "out": shape})
    return pd.DataFrame(rows).reindex(columns=_COLUMNS).astype({"parameters": "Int64"})
