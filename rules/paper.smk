# The paper's items, from records and small tables alone: no model (but in describe_architectures, where none has
# weights), no GPU, and seconds of a CPU: on a cluster they are made where Snakemake runs. All are made as the first is: an
# item's script comes first in its code, its named inputs are the script's options, and the script writes each output by
# its suffix (.csv: the values shown). One label an item: the report takes a second label with two values for a toggle
# and breaks where not every combination exists.


# each by its name: `use rule` does not hand on that a rule is local
localrules:
    describe_architectures,
    describe_run,
    make_claims,
    make_metrics,
    make_published_claims,
    make_resources,
    make_table1,
    make_table2,
    make_table3,
    make_table4,
    plot_denoising,
    plot_extrapolation,
    plot_figure1,
    plot_figure2,
    plot_figure3,
    plot_figure4,
    plot_figure5,
    plot_figure6,
    plot_figure7,
    plot_gallery,
    plot_relative,
    plot_training,
    summarise,


STUDIES = json.dumps(
    {
        name: {
            key: chosen[key]
            for key in ("title", "paper_dataset", "dataset", "schedule")
        }
        for name, chosen in SELECTED.items()
    }
)
RECORDS = studies(rules.evaluate_samples.output.records) + studies(
    rules.measure_latency.output.records
)
TRAININGS = json.dumps(
    {
        name: json.loads(STUDIES)[name] | {"training": training_keywords(chosen)}
        for name, chosen in SELECTED.items()
    }
)
CURVES = [
    curve
    for role in ROLES
    for curve in studies(f"{STUDY}/{role}/curve.csv", trains(role))
]

EXITS = studies(
    rules.profile_exits.output.exits,
    lambda name, chosen: chosen["grid"]["ddpm"]["theta"],  # as Figure 1
)
LOSSES = studies(rules.profile_denoising.output.losses)
PROFILES = studies(rules.profile_denoising.output.records) + studies(
    rules.profile_exits.output.records, lambda name, chosen: has_heads(chosen)
)


rule make_table1:
    input:
        records=RECORDS,
        paper="report/paper/table1.csv",
        code=code("make_table1"),
    output:
        multiext("results/tables/table1", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/table1.html",
            caption="../report/table1.rst",
            category="Tables",
            labels={"item": "Table 1: DDIM"},
        ),
    log:
        "logs/make_table1.log",
    benchmark:
        "benchmarks/make_table1.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        inputs=lambda wc, input: named_inputs(input),
        studies=STUDIES,
    shell:
        "python {input.code[0]} {params.inputs} --studies {params.studies:q} --out {output} --log {log}"


use rule make_table1 as make_table2 with:
    input:
        records=RECORDS,
        paper="report/paper/table2.csv",
        code=code("make_table2"),
    output:
        multiext("results/tables/table2", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/table2.html",
            caption="../report/table2.rst",
            category="Tables",
            labels={"item": "Table 2: all methods, DDPM"},
        ),
    log:
        "logs/make_table2.log",
    benchmark:
        "benchmarks/make_table2.tsv"


rule describe_architectures:
    input:
        configuration="config/paper.yaml",
        code=code("describe_architectures"),
    output:
        "results/architectures.json",
    log:
        "logs/describe_architectures.log",
    benchmark:
        "benchmarks/describe_architectures.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        networks=json.dumps(
            {name: network_keywords(chosen) for name, chosen in SELECTED.items()}
        ),
    shell:
        "python workflow_scripts/describe_architectures.py --networks {params.networks:q}"
        " --configuration {input.configuration} --out {output} --log {log}"


use rule make_table1 as make_table3 with:
    input:
        architectures=rules.describe_architectures.output,
        paper="report/paper/table3.csv",
        code=code("make_table3"),
    output:
        multiext("results/tables/table3", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/table3.html",
            caption="../report/table3.rst",
            category="Tables",
            labels={"item": "Table 3: architectures"},
        ),
    log:
        "logs/make_table3.log",
    benchmark:
        "benchmarks/make_table3.tsv"


use rule make_table1 as make_table4 with:
    input:
        configuration="config/paper.yaml",
        paper="report/paper/table4.csv",
        code=code("make_table4"),
    output:
        multiext("results/tables/table4", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/table4.html",
            caption="../report/table4.rst",
            category="Tables",
            labels={"item": "Table 4: training"},
        ),
    log:
        "logs/make_table4.log",
    benchmark:
        "benchmarks/make_table4.tsv"
    params:
        inputs=lambda wc, input: named_inputs(input),
        studies=TRAININGS,


use rule make_table1 as make_metrics with:
    input:
        records=studies(rules.evaluate_samples.output.records),
        code=code("make_metrics"),
    output:
        multiext("results/tables/metrics", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/metrics.html",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"item": "All metrics, with intervals"},
        ),
    log:
        "logs/make_metrics.log",
    benchmark:
        "benchmarks/make_metrics.tsv"


use rule make_table1 as make_resources with:
    input:
        records=studies(rules.measure_latency.output.records),
        code=code("make_resources"),
    output:
        multiext("results/tables/resources", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/resources.html",
            caption="../report/resources.rst",
            category="Tables",
            labels={"item": "Cost of the methods"},
        ),
    log:
        "logs/make_resources.log",
    benchmark:
        "benchmarks/make_resources.tsv"


rule make_claims:
    input:
        records=RECORDS + PROFILES,
        table1="report/paper/table1.csv",
        table2="report/paper/table2.csv",
        code=code("make_claims"),
    output:
        multiext("results/tables/claims", ".csv", ".md", ".tex"),
        html=report(
            "results/tables/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"item": "The paper's claims, tested"},
        ),
    log:
        "logs/make_claims.log",
    benchmark:
        "benchmarks/make_claims.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        inputs=lambda wc, input: named_inputs(input),
        studies=shlex.join(["--studies", STUDIES]),
        limits=json.dumps(config["claims"]),
    shell:
        "python {input.code[0]} {params.inputs} {params.studies} --limits {params.limits:q}"
        " --out {output} --log {log}"


use rule make_claims as make_published_claims with:
    input:
        table1="report/paper/table1.csv",
        table2="report/paper/table2.csv",
        code=code("make_published_claims"),
    output:
        multiext("results/paper/claims", ".csv", ".md", ".tex", ".html"),
    log:
        "logs/make_published_claims.log",
    benchmark:
        "benchmarks/make_published_claims.tsv"
    params:
        inputs=lambda wc, input: named_inputs(input),
        studies="",
        limits=json.dumps(config["claims"]),


use rule make_table1 as plot_figure1 with:
    input:
        profiles=EXITS,
        code=code("plot_figure1"),
    output:
        multiext("results/figures/figure1", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure1.svg",
            caption="../report/figure1.rst",
            category="Figures",
            labels={"item": "Figure 1: exit layers over t"},
        ),
    log:
        "logs/plot_figure1.log",
    benchmark:
        "benchmarks/plot_figure1.tsv"


use rule make_table1 as plot_figure2 with:
    input:
        data=expand(
            rules.pack_dataset.output.manifest,
            dataset=dict.fromkeys(chosen["dataset"] for chosen in SELECTED.values()),
        ),
        code=code("plot_figure2"),
    output:
        multiext("results/figures/figure2", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure2.svg",
            caption="../report/figure2.rst",
            category="Figures",
            labels={"item": "Figure 2: input and target over t"},
        ),
    log:
        "logs/plot_figure2.log",
    benchmark:
        "benchmarks/plot_figure2.tsv"


use rule make_table1 as plot_figure3 with:
    input:
        architectures=rules.describe_architectures.output,
        code=code("plot_figure3"),
    output:
        multiext("results/figures/figure3", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure3.svg",
            caption="../report/figure3.rst",
            category="Figures",
            labels={"item": "Figure 3: DuoDiff, as built"},
        ),
    log:
        "logs/plot_figure3.log",
    benchmark:
        "benchmarks/plot_figure3.tsv"


use rule make_table1 as plot_figure4 with:
    input:
        records=RECORDS,
        paper="report/paper/table2.csv",
        code=code("plot_figure4"),
    output:
        multiext("results/figures/figure4", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure4.svg",
            caption="../report/figure4.rst",
            category="Figures",
            labels={"item": "Figure 4: distance against time"},
        ),
    log:
        "logs/plot_figure4.log",
    benchmark:
        "benchmarks/plot_figure4.tsv"


use rule make_table1 as plot_figure5 with:
    input:
        samples=figure5_samples(),
        code=code("plot_figure5"),
    output:
        multiext("results/figures/figure5", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure5.svg",
            caption="../report/figure5.rst",
            category="Figures",
            labels={"item": "Figure 5: the same noise, rising theta and t_s"},
        ),
    log:
        "logs/plot_figure5.log",
    benchmark:
        "benchmarks/plot_figure5.tsv"


use rule make_table1 as plot_figure6 with:
    input:
        architectures=rules.describe_architectures.output,
        code=code("plot_figure6"),
    output:
        multiext("results/figures/figure6", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure6.svg",
            caption="../report/figure6.rst",
            category="Figures",
            labels={"item": "Figure 6: AdaDiff, as built"},
        ),
    log:
        "logs/plot_figure6.log",
    benchmark:
        "benchmarks/plot_figure6.tsv"


use rule make_table1 as plot_figure7 with:
    input:
        architectures=rules.describe_architectures.output,
        code=code("plot_figure7"),
    output:
        multiext("results/figures/figure7", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/figure7.svg",
            caption="../report/figure7.rst",
            category="Figures",
            labels={"item": "Figure 7: uncertainty, as built"},
        ),
    log:
        "logs/plot_figure7.log",
    benchmark:
        "benchmarks/plot_figure7.tsv"


use rule make_table1 as plot_relative with:
    input:
        records=RECORDS,
        paper="report/paper/table2.csv",
        architectures=rules.describe_architectures.output,
        code=code("plot_relative"),
    output:
        multiext("results/figures/relative", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/relative.svg",
            caption="../report/relative.rst",
            category="Figures",
            labels={"item": "Relative distance against time saved"},
        ),
    log:
        "logs/plot_relative.log",
    benchmark:
        "benchmarks/plot_relative.tsv"


use rule make_table1 as plot_training with:
    input:
        curves=CURVES,
        code=code("plot_training"),
    output:
        multiext("results/figures/training", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/training.svg",
            caption="../report/training.rst",
            category="Checks",
            labels={"item": "Training: loss curves"},
        ),
    log:
        "logs/plot_training.log",
    benchmark:
        "benchmarks/plot_training.tsv"


use rule make_table1 as plot_denoising with:
    input:
        losses=LOSSES,
        code=code("plot_denoising"),
    output:
        multiext("results/figures/denoising", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/denoising.svg",
            caption="../report/denoising.rst",
            category="Checks",
            labels={"item": "Denoising: held-out loss over t"},
        ),
    log:
        "logs/plot_denoising.log",
    benchmark:
        "benchmarks/plot_denoising.tsv"


use rule make_table1 as plot_extrapolation with:
    input:
        curves=studies(rules.evaluate_samples.output.curves, extrapolates),
        code=code("plot_extrapolation"),
    output:
        multiext("results/figures/extrapolation", ".csv", ".png", ".pdf"),
        svg=report(
            "results/figures/extrapolation.svg",
            caption="../report/extrapolation.rst",
            category="Checks",
            labels={"item": "Distance against n, extrapolated"},
        ),
    log:
        "logs/plot_extrapolation.log",
    benchmark:
        "benchmarks/plot_extrapolation.tsv"


use rule make_table1 as summarise with:
    input:
        records=RECORDS,
        curves=CURVES,
        claims="results/tables/claims.csv",
        code=code("summarise"),
    output:
        "results/summary.txt",
    log:
        "logs/summarise.log",
    benchmark:
        "benchmarks/summarise.tsv"


# The rules whose run times are listed, in the order of the data.
RULES_OF_A_STUDY = (
    """fetch_dataset fetch_autoencoder fetch_extractor import_weights pack_dataset
    train_autoencoder encode_latents gather_latents train_classifier compute_reference train_backbone
    train_heads profile_denoising sample_images sample_shard gather_samples profile_exits evaluate_samples
    measure_latency""".split()
)
SELECTED_DATASETS = {
    chosen["dataset"]: DATASETS[chosen["dataset"]] for chosen in SELECTED.values()
}


use rule make_table1 as plot_gallery with:
    input:
        samples=samples,
        images=packed,
        code=code("plot_gallery"),
    output:
        png=report(
            f"{STUDY}/gallery.png",
            caption="../report/gallery.rst",
            category="Galleries",
            labels={"item": "{experiment}, training seed {train_seed}"},
        ),
        data=f"{STUDY}/gallery.csv",
    log:
        f"{LOG}/plot_gallery.log",
    benchmark:
        f"{BENCHMARK}/plot_gallery.tsv"


rule describe_run:
    input:
        records=RECORDS,
        # not read, but it comes after them, to list their run times
        others=CURVES + EXITS + LOSSES,
        code=code("describe_run"),
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
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        folders=[
            *SELECTED,
            *(f"data/{name}" for name in SELECTED_DATASETS),
            "data/fetch_extractor",
        ],
        rules=RULES_OF_A_STUDY,
        configuration=json.dumps(
            config | {"experiments": SELECTED} | {"datasets": SELECTED_DATASETS}
        ),
    shell:
        "python workflow_scripts/describe_run.py --records {input.records} --benchmarks benchmarks"
        " --folders {params.folders} --rules {params.rules} --configuration {params.configuration:q}"
        " --page {output.page} --times {output.times} --settings {output.settings} --log {log}"


# The paper's published numbers alone: the same scripts without records, for the target paper_figures.

ARCHITECTURES = rules.describe_architectures.output
PUBLISHED = {
    "table1": ("make_table1", {"records": [], "paper": "report/paper/table1.csv"}),
    "table2": ("make_table2", {"records": [], "paper": "report/paper/table2.csv"}),
    "table3": (
        "make_table3",
        {"architectures": ARCHITECTURES, "paper": "report/paper/table3.csv"},
    ),
    "table4": (
        "make_table4",
        {
            "configuration": "config/paper.yaml",
            "paper": "report/paper/table4.csv",
        },
    ),
    "figure3": ("plot_figure3", {"architectures": ARCHITECTURES}),
    "figure4": ("plot_figure4", {"records": [], "paper": "report/paper/table2.csv"}),
    "figure6": ("plot_figure6", {"architectures": ARCHITECTURES}),
    "figure7": ("plot_figure7", {"architectures": ARCHITECTURES}),
    "ddim": ("plot_figure4", {"records": [], "paper": "report/paper/table1.csv"}),
    "relative": (
        "plot_relative",
        {
            "records": [],
            "paper": "report/paper/table2.csv",
            "architectures": ARCHITECTURES,
        },
    ),
}

for item, (script, inputs) in PUBLISHED.items():
    suffixes = (
        (".csv", ".md", ".tex", ".html")
        if script.startswith("make")
        else (".csv", ".svg", ".png", ".pdf")
    )

    rule:
        name:
            f"make_published_{item}"
        input:
            **inputs,
            code=code(script),
        output:
            multiext(f"results/paper/{item}", *suffixes),
        log:
            f"logs/make_published_{item}.log",
        benchmark:
            f"benchmarks/make_published_{item}.tsv"
        localrule: True
        conda:
            "../envs/environment.yaml"
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            inputs=lambda wc, input: named_inputs(input),
        shell:
            "python {input.code[0]} {params.inputs} --studies '{{}}' --out {output} --log {log}"
