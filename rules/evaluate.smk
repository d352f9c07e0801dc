# Distances of all samples to their reference, and times per image. Both are written as JSON records.


rule compute_reference:
    input:
        unpack(lambda wc: feature_weights(wc.dataset, wc.metric)),
        data=f"{PACKED}/manifest.json",
        code=code("compute_reference"),
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
        gpu=GPU,
        mem_mb=4000,
        runtime=240,
    params:
        weights=lambda wc, input: feature_file(wc.metric, input),
        number=lambda wc: "" if wc.reference == "all" else f" --count {wc.reference}",
        folder="results/statistics",
        device=config["device"],
    shell:
        "python workflow_scripts/compute_reference.py --data {input.data}"
        " --metric {wildcards.metric} --weights {params.weights:q}{params.number}"
        " --folder {params.folder} --device {params.device} --out {output.receipt} --log {log}"


rule evaluate_samples:
    input:
        unpack(reference),
        unpack(study_models),
        samples=samples,
        data=packed,
        code=code("evaluate_samples"),
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
        gpu=GPU,
        mem_mb=lambda wc: (
            16000 if space(experiment(wc)["metric"]["name"]).weights else 4000
        ),
        runtime=240,
    params:
        models=lambda wc, input: model_arguments(input),
        metric=option("metric", "name"),
        weights=lambda wc, input: feature_file(experiment(wc)["metric"]["name"], input),
        protocol=option("protocol"),
        images=option("sampling", "images"),
        device=config["device"],
    shell:
        "python workflow_scripts/evaluate_samples.py --samples {input.samples}"
        " --data {input.data} --metric {params.metric} --weights {params.weights:q}"
        " --reference {input.reference} {params.models}"
        " --experiment {wildcards.experiment} --protocol {params.protocol}"
        " --train-seed {wildcards.train_seed} --images {params.images}"
        " --device {params.device} --out {output.records} --curves {output.curves} --log {log}"


rule measure_latency:
    input:
        unpack(measured_models),
        autoencoder=autoencoder_files,
        code=code("measure_latency"),
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
        gpu=GPU,
        mem_mb=latent_memory,
        runtime=60,
    params:
        models=lambda wc, input: model_arguments(input),
        protocol=option("protocol"),
        conventions=conventions("schedule", "time_input", "class_order"),
        grid=latency_grid,
        batch=option("latency", "batch"),
        repeats=option("latency", "repeats"),
        seed=option("sampling", "seed"),
        autoencoder=autoencoder,
        threads=min(config["threads"], ALL_CORES),
        precision=option("sampling", "precision"),
        device=config["device"],
    shell:
        "python workflow_scripts/measure_latency.py {params.models}"
        " --experiment {wildcards.experiment} --protocol {params.protocol}"
        " --conventions {params.conventions:q}"
        " --grid {params.grid:q} --batch {params.batch} --repeats {params.repeats}"
        " --threads {params.threads} --train-seed {wildcards.train_seed} --seed {params.seed}"
        " {params.autoencoder} --precision {params.precision} --device {params.device}"
        " --out {output.records} --log {log}"
