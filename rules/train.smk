# Trains the full and the shallow backbone independently (Section 3), AdaDiff's heads on the full backbone (Appendix A),
# and the classifier whose features measure distances.


TRAIN_BACKBONE = Work(
    "train_backbone",
    decides=lambda wc: {
        "architecture": backbone_architecture(experiment(wc), wc.backbone),
        "conventions": conventions(wc, "schedule", "time_input", "prediction"),
        "null_class": experiment(wc)["null_class"],
        "training": experiment(wc)["backbone_training"],
        "seed": wc.train_seed,
    },
    how=lambda wc: {
        "device": config["device"],
        "monitor": monitor(wc, f"train_backbone/{wc.backbone}"),
    },
    paths=lambda wc, input, output: {"data": input.data, "out": output.manifest},
    processes=TRAINING_GPUS,
    kept=True,
)


rule train_backbone:
    input:
        data=training_data,
        accepted=TRAIN_BACKBONE.accepted("train_backbone"),
    output:
        manifest=f"{STUDY}/{{backbone}}/manifest.json",
        weights=f"{STUDY}/{{backbone}}/model.safetensors",
        curve=f"{STUDY}/{{backbone}}/curve.csv",
    log:
        f"{LOG}/train_backbone/{{backbone}}.log",
    benchmark:
        f"{BENCHMARK}/train_backbone/{{backbone}}.tsv"
    priority: 10
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(TRAINING_GPUS),
        mem_mb=2000,
        runtime=minutes(720),
    params:
        identity=TRAIN_BACKBONE.identity,
        command=TRAIN_BACKBONE.command,
    shell:
        COMMAND


TRAIN_HEADS = Work(
    "train_heads",
    decides=lambda wc: {
        "conventions": conventions(wc, "schedule", "time_input"),
        "training": experiment(wc)["heads_training"],
        "protocol": experiment(wc)["protocol"],
        "seed": wc.train_seed,
    },
    how=lambda wc: {"device": config["device"], "monitor": monitor(wc, "train_heads")},
    paths=lambda wc, input, output: {
        "data": input.data,
        "backbone": input.full,
        "out": output.manifest,
    },
    processes=TRAINING_GPUS,
    kept=True,
)


rule train_heads:
    input:
        data=training_data,
        full=lambda wc: model(wc, "full"),
        accepted=TRAIN_HEADS.accepted("train_heads"),
    output:
        manifest=f"{STUDY}/heads/manifest.json",
        weights=f"{STUDY}/heads/model.safetensors",
        curve=f"{STUDY}/heads/curve.csv",
    log:
        f"{LOG}/train_heads.log",
    benchmark:
        f"{BENCHMARK}/train_heads.tsv"
    priority: 10
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(TRAINING_GPUS),
        mem_mb=2000,
        runtime=minutes(720),
    params:
        identity=TRAIN_HEADS.identity,
        command=TRAIN_HEADS.command,
    shell:
        COMMAND


TRAIN_CLASSIFIER = Work(
    "train_classifier",
    decides=lambda wc: classifier(wc),
    how=lambda wc: {"device": config["device"]},
    paths=lambda wc, input, output: {"data": input.data, "out": output.weights},
    kept=True,
)


rule train_classifier:
    input:
        data=f"{PACKED}/manifest.json",
        accepted=TRAIN_CLASSIFIER.accepted("train_classifier"),
    output:
        weights=f"{PACKED}/{{metric}}/classifier.safetensors",
        description=f"{PACKED}/{{metric}}/classifier.json",
    log:
        "logs/data/{dataset}/{metric}/train_classifier.log",
    benchmark:
        "benchmarks/data/{dataset}/{metric}/train_classifier.tsv"
    wildcard_constraints:
        dataset=datasets_with_classifier(shipped=False),
    priority: 15  # before the backbones: it takes a minute, and fails if there are no classes
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=2000,
        runtime=minutes(60),
    params:
        identity=TRAIN_CLASSIFIER.identity,
        command=TRAIN_CLASSIFIER.command,
    shell:
        COMMAND
