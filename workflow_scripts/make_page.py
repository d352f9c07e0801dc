from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.page.page import Sources, write


def make_page(
    records: list[Path],
    exits: list[Path],
    samples: list[Path],
    data: list[Path],
    paper: Path,
    claims: Path,
    settings: Path,
    times: Path,
    templates: Path,
    studies: dict,
    out: Path,
    study: Path | None = None,
) -> str:
    """Write the page of a run: the result, its figures and images, and what made them, in one file.

    --records are all records of the run. --exits are the tables of profile_exits that Figure 1 shows. --samples and
    --data are manifests of sample stores and of packed datasets. --paper is the published Table 2, --claims the claims
    table of the run. --settings and --times are what describe_run wrote. --templates is the folder of the page's parts,
    --study that of the shipped study, if there is one.
    """
    sources = Sources(
        records=records,
        exits=exits,
        samples=samples,
        data=data,
        paper=paper,
        claims=claims,
        settings=settings,
        times=times,
        study=study,
    )
    return write(sources, studies, templates, out)


if __name__ == "__main__":
    job.run(make_page)
