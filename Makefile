# Everything a person repeats. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
CORES ?= all
REPORT ?= results/report.html

.PHONY: help setup reproduce reproduce-gpu sample-only verify study report paper-figures test lint format unit slow \
  workflow test-browser test-faults test-slurm test-gpu bench bench-gpu switchbench schedules classifiers lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.installed  ## Install everything into .venv from the hash-locked requirements

$(VENV)/.installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, found " + sys.version.split()[0] + "; set PYTHON=python3.12, say") if sys.version_info < (3, 11) else None'
	test -x "$(BIN)/python" || $(PYTHON) -m venv $(VENV)
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	"$(BIN)/uv" pip sync --python "$(BIN)/python" --quiet --compile-bytecode --require-hashes \
	  envs/requirements.txt
	"$(BIN)/uv" pip install --python "$(BIN)/python" --quiet --no-deps --editable .
	@touch $@

reproduce: setup  ## The whole study on the embedded dataset: tables, figures, report, and the result as a page
	snakemake --cores $(CORES)
	@test -e results/report.html || $(MAKE) --no-print-directory report
	@python -m duodiff verify --brief || true
	@echo "The result, as a page: results/index.html"

# One GPU. The zip of JPEGs if it is there, else the official archive, which is downloaded if need be. FID too where
# Inception's weights are. The first run trains, and samples all cells of a training in one process; the second does
# the rest.
DATA ?= data
INCEPTION := weights/weights-inception-2015-12-05-6726825d.pth
GPU_STUDIES = cifar10_gpu $(if $(DUODIFF_INCEPTION)$(wildcard $(DATA)/$(INCEPTION)),cifar10_gpu_fid)
GPU_RUN = snakemake --directory study/cifar10_gpu --cores $(CORES) \
  --configfile config/cifar10_gpu.yaml $(if $(wildcard $(DATA)/cifar10-train-jpeg.zip),,config/cifar10_official.yaml) \
  --config data="$$(cd "$(DATA)" && pwd)" only="$(GPU_STUDIES)"

reproduce-gpu: setup  ## CIFAR-10 with the paper's U-ViT-S/2 on one GPU (DATA=folder of the zip or of the archive)
	$(GPU_RUN) -- $(GPU_STUDIES:%=results/%/train0/samples/cells.json)
	$(GPU_RUN)
	@echo "The result, as a page: study/cifar10_gpu/results/index.html"

sample-only: setup  ## The same from the shipped networks of one training: sampling, tables, figures; trains nothing
	python -m duodiff networks
	$(MAKE) --no-print-directory reproduce

verify: setup  ## Compare a run with the shipped study, number by number; fails if a named quantity is outside
	python -m duodiff verify

# Five trainings of the study are made once more with other kernels of the processor, as another machine would have.
OTHER_KERNELS := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=default
AGAIN := $(foreach seed,0 1 2 3 4,$(foreach name,evaluate_samples profile_exits profile_denoising measure_latency,\
  results/digits/train$(seed)/records/$(name).json))

study: setup  ## The shipped study, ten trainings of the default, into report/study; stop it at will, it continues
	snakemake --directory study/usual --configfile config/config.yaml config/trainings.yaml --cores $(CORES)
	$(OTHER_KERNELS) snakemake --directory study/other_kernels --configfile config/config.yaml config/trainings.yaml \
	  --cores $(CORES) -- $(AGAIN)
	python -m duodiff ship study/usual/results --other study/other_kernels/results

report: setup  ## The HTML report of what was run (CONFIG=config/paper.yaml; REPORT=results/report.zip for large ones)
	snakemake $(if $(CONFIG),--configfile $(CONFIG)) --report "$(REPORT)" --report-stylesheet report/report.css

paper-figures: setup  ## The paper's published numbers as tables and figures, in results/paper; trains nothing
	snakemake --cores $(CORES) paper_figures

test: setup lint unit slow workflow  ## Lint, all unit tests, and the workflow end to end at test size

lint: setup  ## Style of Python and Snakemake files, and types
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint
	mypy

format: setup  ## Rewrite Python and Snakemake files in the project's style
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

# Two processes, a thread each: the tests are small, and two cores are what they are sure to have.
UNIT_TESTS := OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile tests/unit

unit: setup  ## Unit tests, the fast ones
	$(UNIT_TESTS) -m 'not slow'

slow: setup  ## Unit tests, the slow ones
	$(UNIT_TESTS) -m slow

workflow: setup  ## Workflow tests: the chain on config/test.yaml (WITH=tests/browser: the page and the report of that run, too)
	pytest $(WITH) tests/workflow

test-browser: setup  ## The page and the report in a real browser, needs Debian's chromium (REPORT_OF=. looks at your own run's)
	pytest tests/browser

test-faults: setup  ## Kills, signals, full disks, damaged files and downloads, random configurations
	pytest tests/faults tests/unit/running/test_download.py

test-slurm: setup  ## The workflow on a throw-away SLURM cluster here, needs root and Debian's slurm-wlm and munge
	pytest tests/slurm

test-gpu:  ## Tests on an NVIDIA GPU, by the interpreter at hand (PYTHON=): needs no setup
	$(PYTHON) tests/gpu.py

bench: setup  ## Speed and memory, as a table in results/bench (IMAGES=a zip of 50,000 images, or made ones)
	python bench/bench.py $(if $(IMAGES),--images "$(IMAGES)")

bench-gpu:  ## Speed on an NVIDIA GPU, by the interpreter at hand (PYTHON=), into results/bench_gpu
	$(PYTHON) bench/gpu.py

USUAL := 0 1 2 3 4
FRESH := 100 101 102 103 104
SWITCHBENCH := $(USUAL:%=study/usual/results/digits/train%) $(FRESH:%=study/switchbench/results/digits/train%)

switchbench: setup  ## SwitchBench, all masks of ten steps in ten trainings; stop it at will, it continues
	snakemake --directory study/usual --configfile config/config.yaml config/trainings.yaml --cores $(CORES) \
	  -- $(call trained,$(USUAL))
	snakemake --directory study/switchbench --configfile config/config.yaml config/switchbench.yaml --cores $(CORES) \
	  -- $(call trained,$(FRESH))
	$(call masks,$(wordlist 1,4,$(SWITCHBENCH)))
	$(call masks,$(wordlist 5,8,$(SWITCHBENCH)))
	$(call masks,$(wordlist 9,10,$(SWITCHBENCH)))

# The images and networks of `make study`, with their receipts: `make schedules` trains none of them again.
THREE := $(wordlist 1,3,$(USUAL))
FOUND := data $(foreach seed,$(THREE),$(foreach role,full shallow heads,digits/train$(seed)/$(role)))

schedules: setup  ## Chosen and guided schedules, three trainings (IMAGES=folder of the zip: of CIFAR-10, too); continues
	snakemake --directory study/usual --configfile config/config.yaml config/trainings.yaml --cores $(CORES) \
	  -- $(call trained,$(THREE))
	mkdir -p study/schedules
	tar -C study/usual --exclude "fd_*" -cf - $(FOUND:%=results/%) $(FOUND:%=results/receipts/%) | tar -C study/schedules -xf -
	snakemake --directory study/schedules --configfile config/config.yaml config/schedules.yaml --cores $(CORES)
	python -m duodiff ship study/schedules/results --records --out report/schedules
	$(if $(IMAGES),$(schedules_of_images))

schedules_of_images = snakemake --directory study/schedules_cifar10 --cores $(CORES) --config data="$$(cd "$(IMAGES)" && pwd)" \
  --configfile config/cifar10_cpu.yaml config/schedules_cifar10.yaml && python -m duodiff ship --records \
  study/schedules_cifar10/results --out report/schedules_cifar10

trained = results/data/digits/manifest.json $(foreach seed,$(1),$(foreach role,full shallow heads,\
  results/digits/train$(seed)/$(role)/manifest.json))
masks = OMP_NUM_THREADS=1 python bench/switchbench.py --trained $(1) $(if $(filter-out all,$(CORES)),--processes $(CORES))

classifiers: setup  ## Train the shipped classifiers anew (IMAGES=folder of the zip: CIFAR-10's, too); all distances change
	snakemake --cores $(CORES) results/data/digits/manifest.json results/data/digits_latent/manifest.json
	$(call ship,digits,fd_digits,300)
	$(call ship,digits_latent,fd_digits16,300)
	$(if $(IMAGES),snakemake --configfile config/cifar10_gpu.yaml --config data="$$(cd "$(IMAGES)" && pwd)" \
	  --cores $(CORES) -- results/data/cifar10_jpeg/manifest.json && $(call ship,cifar10_jpeg,fd_cifar10,1500))

ship = OMP_NUM_THREADS=1 python workflow_scripts/train_classifier.py --data results/data/$(1)/manifest.json \
  --steps $(3) --batch 128 --device cpu --out config/classifiers/$(2).safetensors

lock: setup  ## Lock envs/requirements.in anew
	"$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" \
	  envs/requirements.in --output-file envs/requirements.txt

clean:  ## Remove what runs have written
	rm -rf results logs benchmarks study .snakemake
