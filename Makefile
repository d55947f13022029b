# Everything a person types. Each target sets up what it needs (deploy/dev/need.sh) and says so.
#
#   make run        start the hub on this machine: UI and program built for release
#   make build      the program alone, with the UI inside: target/release/phlix
#   make check      the quick loop: format, clippy, the crates' tests; no Node
#   make test       everything: check, the web UI and its browser tests, the whole-house stories
#   make test-slow  the stories that take minutes, at their full size

.DEFAULT_GOAL := help
.PHONY: help run build check test test-slow web-ui

CARGO_TARGET_DIR ?= target

help:
	@sed -n 's/^#   //p' Makefile

run: build
	$(CARGO_TARGET_DIR)/release/phlix serve

build: web-ui
	cargo build --release --locked -p phlix

web-ui:
	deploy/dev/need.sh run
	deploy/dev/web-ui.sh

check:
	deploy/dev/need.sh check
	deploy/dev/test.sh check

test:
	deploy/dev/need.sh test
	deploy/dev/test.sh test

test-slow:
	deploy/dev/need.sh test
	deploy/dev/test.sh test-slow
