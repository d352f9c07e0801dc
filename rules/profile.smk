# Held-out losses, uncertainties and the exit layers of the samples, at each timestep.


rule profile_denoising:
    input:
        unpack(study_models),
        data=training_data,
        code=code("profile_denoising"),
    output:
        losses=f"{STUDY}/profile/denoising.csv",
        quantiles=f"{STUDY}/profile/quantiles.json",
        records=f"{STUDY}/records/profile_denoising.json",
    log:
        f"{LOG}/profile_denoising.log",
    benchmark:
        f"{BENCHMARK}/profile_denoising.tsv"
    priority: 10
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=2000,
        runtime=30,
    params:
        models=lambda wc, input: model_arguments(input),
        conventions=conventions("schedule", "time_input", "class_order"),
        protocol=option("protocol"),
        timesteps=option("profile", "timesteps"),
        batch=option("sampling", "batch"),
        precision=option("sampling", "precision"),
        device=config["device"],
    shell:
        "python workflow_scripts/profile_denoising.py --data {input.data} {params.models}"
        " --conventions {params.conventions:q} --protocol {params.protocol}"
        " --timesteps {params.timesteps} --batch {params.batch} --seed {wildcards.train_seed}"
        " --precision {params.precision} --device {params.device}"
        " --experiment {wildcards.experiment} --losses {output.losses}"
        " --quantiles {output.quantiles} --out {output.records} --log {log}"


rule profile_exits:
    input:
        samples=lambda wc: samples(wc, "adadiff"),
        code=code("profile_exits"),
    output:
        exits=f"{STUDY}/profile/exits.csv",
        records=f"{STUDY}/records/profile_exits.json",
    log:
        f"{LOG}/profile_exits.log",
    benchmark:
        f"{BENCHMARK}/profile_exits.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "python workflow_scripts/profile_exits.py --samples {input.samples}"
        " --table {output.exits} --out {output.records} --log {log}"
