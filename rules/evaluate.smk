# Distances of all samples to their reference, and times per image. Both are written as JSON records.


COMPUTE_REFERENCE = Work(
    "compute_reference",
    decides=lambda wc: {
        "metric": wc.metric,
        "count": None if wc.reference == "all" else wc.reference,
    },
    how=lambda wc: {"folder": "results/statistics", "device": config["device"]},
    paths=lambda wc, input, output: {
        "data": input.data,
        "weights": feature_file(wc.metric, input),
        "out": output.receipt,
    },
    # Not kept: the statistics themselves are, by their identity. Of files that were removed a kept receipt would tell.
)


rule compute_reference:
    input:
        unpack(lambda wc: feature_weights(wc.dataset, wc.metric)),
        data=f"{PACKED}/manifest.json",
        accepted=COMPUTE_REFERENCE.accepted("compute_reference"),
    output:
        receipt=f"{PACKED}/{{metric}}/reference_{{reference}}.json",
    log:
        "logs/data/{dataset}/{metric}/compute_reference_{reference}.log",
    benchmark:
        "benchmarks/data/{dataset}/{metric}/compute_reference_{reference}.tsv"
    priority: 15  # before the backbones: it fails if there are too few images
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=4000,
        runtime=minutes(240),
    params:
        identity=COMPUTE_REFERENCE.identity,
        command=COMPUTE_REFERENCE.command,
    shell:
        COMMAND


EVALUATE_SAMPLES = Work(
    "evaluate_samples",
    decides=lambda wc: {
        "metric": experiment(wc)["metric"]["name"],
        "experiment": wc.experiment,
        "protocol": experiment(wc)["protocol"],
        "train_seed": wc.train_seed,
        "images": experiment(wc)["sampling"]["images"],
    },
    how=lambda wc: {"device": config["device"]},
    paths=lambda wc, input, output: models_of(input)
    | {
        "samples": input.samples,
        "data": input.data,
        "weights": feature_file(experiment(wc)["metric"]["name"], input),
        "reference": input.reference,
        "out": output.records,
        "curves": output.curves,
    },
    kept=True,
    named=samples,
    described=lambda wc: study_models(wc).values(),  # their hashes stand in the records
)


rule evaluate_samples:
    input:
        unpack(reference),
        unpack(study_models),
        samples=samples,
        data=packed,
        accepted=EVALUATE_SAMPLES.accepted("evaluate_samples"),
    output:
        records=f"{STUDY}/records/evaluate_samples.json",
        curves=f"{STUDY}/records/distance_against_n.csv",
    log:
        f"{LOG}/evaluate_samples.log",
    benchmark:
        f"{BENCHMARK}/evaluate_samples.tsv"
    # Before measure_latency, which takes all cores.
    priority: 2
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=lambda wc: (
            16000 if space(experiment(wc)["metric"]["name"]).weights else 4000
        ),
        runtime=minutes(240),
    params:
        identity=EVALUATE_SAMPLES.identity,
        command=EVALUATE_SAMPLES.command,
    shell:
        COMMAND


MEASURE_LATENCY = Work(
    "measure_latency",
    decides=lambda wc: study_options(wc)
    | autoencoder(wc)
    | experiment(wc)["latency"]
    | {
        "compiled": [] if experiment(wc)["latency"]["compiled"] else None,
        "grid": latency_grid(wc),
        "train_seed": wc.train_seed,
        "seed": sampling_seed(experiment(wc)["sampling"]["seed"], int(wc.train_seed)),
        # a time is of its device and threads
        "threads": config["threads"],
        "device": config["device"],
    }
    | named_schedules(wc, all_settings(wc)),
    how=lambda wc: {
        "data": autoencoder_folder(wc),
        "threads": min(config["threads"], ALL_CORES),
    },
    paths=lambda wc, input, output: models_of(input) | {"out": output.records},
)


rule measure_latency:
    input:
        unpack(measured_models),
        autoencoder=autoencoder_files,
        accepted=MEASURE_LATENCY.accepted("measure_latency"),
    output:
        records=f"{STUDY}/records/measure_latency.json",
    log:
        f"{LOG}/measure_latency.log",
    benchmark:
        f"{BENCHMARK}/measure_latency.tsv"
    conda:
        "../envs/environment.yaml"
    # The rule takes all cores, so that nothing runs beside it. It computes with the configuration's `threads`.
    threads: ALL_CORES
    resources:
        gpu=gpus(GPU),
        mem_mb=latent_memory,
        runtime=minutes(240),
    params:
        identity=MEASURE_LATENCY.identity,
        command=MEASURE_LATENCY.command,
    shell:
        COMMAND
