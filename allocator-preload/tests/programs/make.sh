#!/usr/bin/env bash
# make -j2: a generated Makefile with hundreds of targets, patterns, functions and another make inside.
# packages: make
# program: make
set -euo pipefail
n=150
[ "${1:-}" != brief ] || n=3
cat >Makefile <<EOF
N := \$(shell seq $n)
EOF
cat >>Makefile <<'EOF'
MAKEFLAGS += --no-print-directory
.SUFFIXES:
all: total inner.done
total: $(N:%=out/%.sum) ; cat $(sort $^) >$@
out/%.sum: out/%.text ; cksum <$< >$@
out/%.text: | out ; seq $* $$(($* * 10)) >$@
out: ; mkdir $@
inner.done: ; $(MAKE) -f inner.mk N='$(N)' && touch $@
define rule
inner/$(1): $(if $(filter-out 1,$(1)),inner/$(shell expr $(1) - 1)) | inner ; echo $(1) $$(words $$^) >$$@
endef
$(foreach i,$(wordlist 1,40,$(N)),$(eval $(call rule,$(i))))
inner: ; mkdir $@
chain: inner/$(lastword $(wordlist 1,40,$(N))) ; cat inner/* | cksum
EOF
cat >inner.mk <<'EOF'
list := $(foreach a,$(N),$(foreach b,$(wordlist 1,20,$(N)),$(a)-$(b)))
reverse = $(if $(1),$(call reverse,$(wordlist 2,$(words $(1)),$(1))) $(firstword $(1)))
$(file >inner.out,$(words $(list)) $(sort $(patsubst %-3,three-%,$(list))))
$(file >>inner.out,$(call reverse,$(N)) $(subst 1,one,$(filter 1%,$(list))))
all: ; @cksum <inner.out
EOF
make -s -j2 >log
cat log total | sha256sum
make -s -j2 | wc -c
make -s chain
make -p -q >database || true
grep -c '^out/.*text:' database
