# The paper's items: tables, figures, the claims and the summary. They are made from records and small tables alone, in
# seconds, on a CPU. On a cluster they are made where Snakemake runs.
#
# ITEMS has one row an item, and one loop makes a rule of each row. The names of a row's inputs are options of its
# script. The script writes each output by its suffix; the .csv holds the values shown.
# A new item is a row here, a line in `rule all` of the Snakefile, a script with the name of its rule, and
# report/<item>.rst for its caption.


DESCRIBE_ARCHITECTURES = Work(
    "describe_architectures",
    decides=lambda wc: {
        "networks": {
            name: network_keywords(chosen) for name, chosen in SELECTED.items()
        }
    },
    own=lambda wc: {"configuration": "config/paper.yaml"},
    paths=lambda wc, input, output: {"out": output[0]},
)


rule describe_architectures:
    input:
        accepted=DESCRIBE_ARCHITECTURES.accepted("describe_architectures"),
    output:
        "results/architectures.json",
    log:
        "logs/describe_architectures.log",
    benchmark:
        "benchmarks/describe_architectures.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        identity=DESCRIBE_ARCHITECTURES.identity,
        command=DESCRIBE_ARCHITECTURES.command,
    shell:
        COMMAND


# What the items are made from.
TABLE1, TABLE2, TABLE3, TABLE4 = (f"report/paper/table{n}.csv" for n in range(1, 5))
NETWORKS = rules.describe_architectures.output
SELECTED_DATASETS = {
    chosen["dataset"]: DATASETS[chosen["dataset"]] for chosen in SELECTED.values()
}
IMAGES = expand(rules.pack_dataset.output.manifest, dataset=SELECTED_DATASETS)
DISTANCES = studies(rules.evaluate_samples.output.records)
LATENCIES = studies(rules.measure_latency.output.records)
RECORDS = DISTANCES + LATENCIES
PROFILES = studies(rules.profile_denoising.output.records) + studies(
    rules.profile_exits.output.records, lambda name, chosen: exits_early(chosen)
)
SCORES = studies(rules.choose_schedules.output.records)
LOSSES = studies(rules.profile_denoising.output.losses)
EXITS = studies(
    rules.profile_exits.output.exits,
    lambda name, chosen: chosen["grid"]["ddpm"]["theta"],  # as Figure 1
)
CURVES = [
    curve
    for role in dict.fromkeys(r for chosen in SELECTED.values() for r in roles(chosen))
    for curve in studies(f"{STUDY}/{role}/curve.csv", trains(role))
]
EXTRAPOLATED = studies(rules.evaluate_samples.output.curves, extrapolates)
LIMITS = {"limits": config["claims"]}

ITEMS = [
    table("table1", label="Table 1: DDIM", records=RECORDS, paper=TABLE1),
    table("table2", label="Table 2: all methods, DDPM", records=RECORDS, paper=TABLE2),
    table(
        "table3", label="Table 3: architectures", architectures=NETWORKS, paper=TABLE3
    ),
    table(
        "table4",
        label="Table 4: training",
        configuration="config/paper.yaml",
        paper=TABLE4,
        options={"studies": described(training=True)},
    ),
    table("metrics", label="All metrics, with intervals", records=DISTANCES),
    table("resources", label="Cost of the methods", records=LATENCIES),
    table("front", label="The front: operations saved", records=RECORDS),
    table(
        "claims",
        label="The paper's claims, tested",
        category="Claims",
        records=RECORDS + PROFILES + SCORES,
        table1=TABLE1,
        table2=TABLE2,
        options=STUDIES | LIMITS,
    ),
    figure("figure1", label="Figure 1: exit layers over t", profiles=EXITS),
    figure("figure2", label="Figure 2: input and target over t", data=IMAGES),
    figure("figure3", label="Figure 3: DuoDiff, as built", architectures=NETWORKS),
    figure(
        "figure4",
        label="Figure 4: distance against time",
        records=RECORDS,
        paper=TABLE2,
    ),
    figure(
        "figure5",
        label="Figure 5: the same noise, rising theta and t_s",
        samples=figure5_samples(),
        data=IMAGES,
    ),
    figure("figure6", label="Figure 6: AdaDiff, as built", architectures=NETWORKS),
    figure("figure7", label="Figure 7: uncertainty, as built", architectures=NETWORKS),
    figure(
        "relative",
        label="Relative distance against time saved",
        records=RECORDS,
        paper=TABLE2,
        architectures=NETWORKS,
    ),
    figure("front", label="The front: distance against cost", records=RECORDS),
    figure("training", label="Training: loss curves", category="Checks", curves=CURVES),
    figure(
        "denoising",
        label="Denoising: held-out loss over t",
        category="Checks",
        losses=LOSSES,
    ),
    figure(
        "extrapolation",
        label="Distance against n, extrapolated",
        category="Checks",
        curves=EXTRAPOLATED,
    ),
    Item(
        "plot_gallery",
        f"{STUDY}/gallery",
        (".csv", ".png"),
        {"samples": samples, "images": packed},
        options=STUDIES,
        own={},
        category="Galleries",
        label="{experiment}, training seed {train_seed}",
    ),
    Item(
        "summarise",
        "results/summary",
        (".txt",),
        {
            "records": RECORDS,
            "scores": SCORES,
            "curves": CURVES,
            "claims": "results/tables/claims.csv",
        },
        options=STUDIES,
        own={},
    ),
    # the page that a reader opens first; the shipped study speaks on it, where one is shipped
    Item(
        "make_page",
        "results/index",
        (".html",),
        {
            "records": RECORDS + PROFILES,
            "exits": EXITS,
            "samples": first_samples(),
            "data": IMAGES,
            "claims": "results/tables/claims.csv",
            "settings": "results/run/configuration.yaml",
            "times": "results/run/times.csv",
        },
        options=STUDIES,
        own={"paper": TABLE2, "templates": "report/page"} | shipped_study(),
    ),
    # for `make paper-figures`
    published("table1", "make_table1", records=[], paper=TABLE1),
    published("table2", "make_table2", records=[], paper=TABLE2),
    published("table3", "make_table3", architectures=NETWORKS, paper=TABLE3),
    published("table4", "make_table4", configuration="config/paper.yaml", paper=TABLE4),
    published("figure3", "plot_figure3", architectures=NETWORKS),
    published("figure4", "plot_figure4", records=[], paper=TABLE2),
    published("figure6", "plot_figure6", architectures=NETWORKS),
    published("figure7", "plot_figure7", architectures=NETWORKS),
    published("ddim", "plot_figure4", records=[], paper=TABLE1),
    published(
        "relative", "plot_relative", records=[], paper=TABLE2, architectures=NETWORKS
    ),
    Item(
        "make_published_claims",
        "results/paper/claims",
        TABLE,
        {},
        options=LIMITS,
        own={"table1": TABLE1, "table2": TABLE2},
    ),
]

for item in ITEMS:
    # the log of a study's item is beside the study's other logs
    folder = "{experiment}/train{train_seed}/" if "{experiment}" in item.path else ""
    *others, shown = (item.path + suffix for suffix in item.suffixes)
    caption = f"../report/{Path(item.path).name}.rst"
    work = item_work(item)
    if item.path.split("/")[1] in SHOWN:
        ITEM_WORKS[item.path] = work, item.path + item.suffixes[0]

    rule:
        name:
            item.name
        input:
            **item.inputs,
            accepted=work.accepted(item.name),
        output:
            *others,
            shown=(
                report(
                    shown,
                    caption=caption,
                    category=item.category,
                    labels={"item": item.label},
                )
                if item.label
                else shown
            ),
        log:
            f"logs/{folder}{item.name}.log",
        benchmark:
            f"benchmarks/{folder}{item.name}.tsv"
        localrule: True
        conda:
            "../envs/figures.yaml"
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            identity=work.identity,
            command=work.command,
        shell:
            COMMAND


# The rules whose run times are listed, in the order of the data.
RULES_OF_A_STUDY = (
    """fetch_dataset fetch_autoencoder fetch_extractor import_weights pack_dataset
    train_autoencoder encode_latents gather_latents train_classifier fetch_classifier compute_reference train_backbone
    train_heads profile_denoising sample_cells sample_images sample_shard gather_samples profile_exits
    profile_displacements choose_schedules evaluate_samples measure_latency""".split()
)


DESCRIBE_RUN = Work(
    "describe_run",
    decides=lambda wc: {
        "rules": RULES_OF_A_STUDY,
        "study": {
            "datasets": without_shards(SELECTED_DATASETS),
            "experiments": without_shards(SELECTED),
            "claims": config["claims"],
        },
    },
    # Another device or number of threads has latency measured again, and with it this page made again.
    how=lambda wc: {
        "folders": [
            *SELECTED,
            *(f"data/{name}" for name in SELECTED_DATASETS),
            "data/fetch_extractor",
        ],
        "machine": {
            key: config[key]
            for key in ("threads", "device", "gpus", "data", "extractors")
        },
    },
    paths=lambda wc, input, output: {
        "records": input.records,
        "benchmarks": "benchmarks",
        "page": output.page,
        "times": output.times,
        "settings": output.settings,
    },
)


rule describe_run:
    input:
        records=RECORDS,
        # not read: the rule waits for these files, to list the run times of their jobs
        others=CURVES + EXITS + LOSSES,
        accepted=DESCRIBE_RUN.accepted("describe_run"),
    output:
        page=report(
            "results/run/run.html",
            caption="../report/run.rst",
            category="Run",
            labels={"item": "Machines, run times, configuration"},
        ),
        times="results/run/times.csv",
        settings="results/run/configuration.yaml",
    log:
        "logs/describe_run.log",
    benchmark:
        "benchmarks/describe_run.tsv"
    localrule: True
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        identity=DESCRIBE_RUN.identity,
        command=DESCRIBE_RUN.command,
    shell:
        COMMAND
