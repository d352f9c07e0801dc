from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_specifications
    from duodiff.analysis.specifications import published_values, training_table
    from duodiff.study import config
    from duodiff.study.grid import training_keywords


def make_table4(configuration: Path, paper: Path, studies: dict, out: list[Path]) -> str:
    """Write Table 4 (training), the paper's numbers beside ours, to every path of --out (.csv, .md, .tex, .html).

    --configuration is the file of the paper's experiments. Each study in --studies has its "training".
    """
    published = config.published_experiments(configuration)
    trainings = {name: training_keywords(experiment) for name, experiment in published.items()}
    table = training_table(trainings, published_values(paper), studies)
    return write_specifications(table, out)


if __name__ == "__main__":
    job.run(make_table4)
