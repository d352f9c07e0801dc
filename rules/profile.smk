# Held-out losses, uncertainties and the exit layers of the samples, at each timestep; the schedules chosen by losses.


PROFILE_DENOISING = Work(
    "profile_denoising",
    decides=lambda wc: study_options(wc)
    | {
        "timesteps": experiment(wc)["profile"]["timesteps"],
        "batch": experiment(wc)["sampling"]["batch"],
        "seed": wc.train_seed,
        "also": further_timesteps(experiment(wc)) or None,
        "networks": choosable(experiment(wc)) or None,
    },
    how=lambda wc: {"device": config["device"]},
    paths=lambda wc, input, output: models_of(input)
    | {
        "data": input.data,
        "losses": output.losses,
        "errors": output.errors,
        "quantiles": output.quantiles,
        "out": output.records,
    },
    kept=True,
)


rule profile_denoising:
    input:
        unpack(study_models),
        data=training_data,
        accepted=PROFILE_DENOISING.accepted("profile_denoising"),
    output:
        losses=f"{STUDY}/profile/denoising.csv",
        errors=f"{STUDY}/profile/losses.npz",
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
        gpu=gpus(GPU),
        mem_mb=2000,
        runtime=minutes(240),
    params:
        identity=PROFILE_DENOISING.identity,
        command=PROFILE_DENOISING.command,
    shell:
        COMMAND


PROFILE_EXITS = Work(
    "profile_exits",
    paths=lambda wc, input, output: {
        "samples": input.samples,
        "table": output.exits,
        "out": output.records,
    },
    named=lambda wc: samples(wc, "adadiff"),
)


rule profile_exits:
    input:
        samples=lambda wc: samples(wc, "adadiff"),
        accepted=PROFILE_EXITS.accepted("profile_exits"),
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
    params:
        identity=PROFILE_EXITS.identity,
        command=PROFILE_EXITS.command,
    shell:
        COMMAND


PROFILE_DISPLACEMENTS = Work(
    "profile_displacements",
    decides=lambda wc: {
        key: value for key, value in study_options(wc).items() if key != "experiment"
    }
    | {
        "sampler": sampler_options(experiment(wc), "ddim"),
        "networks": choosable(experiment(wc)),
        "batch": experiment(wc)["sampling"]["batch"],
        "seed": wc.train_seed,
    },
    how=lambda wc: {"device": config["device"]},
    paths=lambda wc, input, output: models_of(input) | {"out": output.displacements},
    kept=True,
)


rule profile_displacements:
    input:
        unpack(study_models),
        accepted=PROFILE_DISPLACEMENTS.accepted("profile_displacements"),
    output:
        displacements=f"{STUDY}/profile/displacements.npz",
    log:
        f"{LOG}/profile_displacements.log",
    benchmark:
        f"{BENCHMARK}/profile_displacements.tsv"
    wildcard_constraints:
        experiment=without_noise(),
    priority: 10
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=4000,
        runtime=minutes(240),
    params:
        identity=PROFILE_DISPLACEMENTS.identity,
        command=PROFILE_DISPLACEMENTS.command,
    shell:
        COMMAND


CHOOSE_SCHEDULES = Work(
    "choose_schedules",
    decides=lambda wc: {"samplers": scored_samplers(experiment(wc))},
    paths=lambda wc, input, output: named_inputs(input)
    | {"out": output.chosen, "predictions": output.records},
)


rule choose_schedules:
    input:
        unpack(scored_profiles),
        losses=f"{STUDY}/profile/losses.npz",
        profiled=f"{STUDY}/records/profile_denoising.json",
        accepted=CHOOSE_SCHEDULES.accepted("choose_schedules"),
    output:
        chosen=f"{STUDY}/profile/chosen.json",
        records=f"{STUDY}/records/choose_schedules.json",
    log:
        f"{LOG}/choose_schedules.log",
    benchmark:
        f"{BENCHMARK}/choose_schedules.tsv"
    priority: 10
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        identity=CHOOSE_SCHEDULES.identity,
        command=CHOOSE_SCHEDULES.command,
    shell:
        COMMAND
