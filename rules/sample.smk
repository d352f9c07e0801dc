# The grid: sampler x method x setting x seed, one cell a job.

CELL = "{sampler}/{method}/{setting}/seed{seed}"


rule sample_images:
    input:
        unpack(cell_models),
        autoencoder=autoencoder_files,
        code=code("sample_images"),
    output:
        manifest=f"{STUDY}/samples/{CELL}/manifest.json",
        images=f"{STUDY}/samples/{CELL}/images.npy",
        labels=f"{STUDY}/samples/{CELL}/labels.npy",
        blocks=f"{STUDY}/samples/{CELL}/blocks_run.npy",
    log:
        f"{LOG}/sample_images/{CELL}.log",
    benchmark:
        f"{BENCHMARK}/sample_images/{CELL}.tsv"
    priority: 5
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=latent_memory,
        runtime=60,
    params:
        models=lambda wc, input: model_arguments(input),
        protocol=option("protocol"),
        conventions=conventions("schedule", "time_input", "class_order"),
        sampler=lambda wc: json.dumps(study.sampler_options(experiment(wc), wc.sampler)),
        images=option("sampling", "images"),
        batch=option("sampling", "batch"),
        autoencoder=autoencoder,
        device=config["device"],
    shell:
        "python workflow_scripts/sample_images.py {params.models}"
        " --experiment {wildcards.experiment} --protocol {params.protocol}"
        " --conventions {params.conventions:q}"
        " --sampler {params.sampler:q} --setting {wildcards.setting} --images {params.images}"
        " --batch {params.batch} --train-seed {wildcards.train_seed} --seed {wildcards.seed}"
        " {params.autoencoder} --device {params.device} --out {output.manifest} --log {log}"
