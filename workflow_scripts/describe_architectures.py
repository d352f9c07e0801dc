from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.architecture import describe
    from duodiff.running.files import write_json
    from duodiff.study import config
    from duodiff.study.grid import network_keywords


def describe_architectures(networks: dict, configuration: Path, out: Path) -> str:
    """Describe the networks of experiments and of the paper: structure, parameters and GFLOPs, to --out (.json).

    --networks is JSON: experiment -> role -> keywords of the network's constructor. --configuration is the file of the
    paper's experiments. Needs no weights and no GPU.
    """
    published = config.published_experiments(configuration)
    paper = {name: network_keywords(experiment) for name, experiment in published.items()}
    described = {
        kind: {name: describe(roles) for name, roles in group.items()}
        for kind, group in (("studies", networks), ("paper", paper))
    }
    write_json(out, described)
    return f"{len(networks)} experiments, {len(paper)} of the paper"


if __name__ == "__main__":
    job.run(describe_architectures)
