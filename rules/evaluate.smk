# Distances of all samples, and the time per image; both as JSON records.


rule evaluate_samples:
    input:
        unpack(feature_weights),
        samples=samples,
        data=packed,
        code=code("evaluate_samples"),
    output:
        records=f"{STUDY}/records/evaluate_samples.json",
    log:
        f"{LOG}/evaluate_samples.log",
    benchmark:
        f"{BENCHMARK}/evaluate_samples.tsv"
    # before the timing job, which leaves no core for anything else
    priority: 2
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=2000,
        runtime=60,
    params:
        metric=option("metric"),
        weights=feature_file,
        protocol=option("protocol"),
        device=config["device"],
    shell:
        "python workflow_scripts/evaluate_samples.py --samples {input.samples}"
        " --data {input.data} --metric {params.metric:q} --weights {params.weights:q}"
        " --experiment {wildcards.experiment} --protocol {params.protocol}"
        " --device {params.device} --out {output.records} --log {log}"


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
    # All cores, so that nothing runs beside it; it computes with `threads` of the configuration.
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
        device=config["device"],
    shell:
        "python workflow_scripts/measure_latency.py {params.models}"
        " --experiment {wildcards.experiment} --protocol {params.protocol}"
        " --conventions {params.conventions:q}"
        " --grid {params.grid:q} --batch {params.batch} --repeats {params.repeats}"
        " --threads {params.threads} --train-seed {wildcards.train_seed} --seed {params.seed}"
        " {params.autoencoder} --device {params.device} --out {output.records} --log {log}"
