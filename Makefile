# SPDX-License-Identifier: MIT
#
# One GNU Makefile for everything.
#
#	make [all]      the library and the ckfast command
#	make check      builds and runs the tests that need no root, no network and no CRIU
#	make check-root the others: real dumps and restores, with CRIU's own tests of memory
#	make check-all  installs what is missing, and runs both
#	make check-long the same with more rounds, longer fuzzing, the thread sanitizer, restores with sanitizers, packages
#	make coverage   names the lines that no test reaches: build/coverage.txt
#	make demo       installs what is missing, builds all, shows a restore both ways
#	make bench      measures; writes build/bench.json, build/codecs.json, tables and a chart
#	make bench-field  stock and fast in the states of the field: build/field.json; FIELD_QUICK=1 takes 10 minutes
#	make bench-podman  a container of podman, checkpointed and restored both ways: build/podman.json
#	make bench-amd  stock and fast with memory of AMD GPUs, on a fake: build/amd.json
#	make bundle     build/bundle: what it takes to measure on another machine
#	make fuzz       fuzzes each target for FUZZ_SECONDS
#	make zdtm       CRIU's own test suite, through fast images; zdtm-subset for the memory tests
#	make lint       format, layout rules and scripts
#	make abi        compares libckfast with the released one; abi-save at a release
#	make criu       gets CRIU and builds it, stock and patched
#	make deps       installs the Debian packages that are missing
#	make install    PREFIX, DESTDIR; install-criu for the patched CRIU; uninstall, uninstall-criu
#	make deb        Debian packages of the working tree, in build/deb
#	make rpm        RPM packages of the working tree, in build/rpm
#	make dist       a source archive of HEAD
#
# D=asan,ubsan or D=tsan builds with sanitizers, D=cov for coverage, in a directory of its own. T=WORD limits check to
# the tests with WORD in their name. V=1 shows the commands. WERROR=0 lets warnings pass. CRIU_VERSION=4.1.1 picks a CRIU,
# CRIU_SRC=DIR|TARBALL gives one's own source.

VERSION := 0.2.0

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
# Where ckfast run looks for the agent: lib or lib/ckfast.
AGENT_DIR ?= $(PREFIX)/lib
PLUGIN_DIR ?= $(PREFIX)/lib/ckfast/criu
HOOK = $(PREFIX)/lib/ckfast/ckfast-convert-hook
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/site-functions
ifeq ($(origin CC),default)
CC := gcc
endif
FUZZ_CC ?= clang-14
PKG_CONFIG ?= pkg-config
CLANG_FORMAT ?= clang-format-14
PROTOC_C ?= protoc-c
OBJCOPY ?= objcopy
D ?=
T ?=
V ?=
WERROR ?= 1
FUZZ_SECONDS ?= 60
export CRIU_VERSION CRIU_SRC CLANG_FORMAT

comma := ,
B := build$(if $(D),/$(subst $(comma),-,$(D)))
P := build/proto

SAN_asan := -fsanitize=address
SAN_ubsan := -fsanitize=undefined -fno-sanitize-recover=undefined
# It does not know fences, which only devices and other processes are kept in order by.
SAN_tsan := -fsanitize=thread -Wno-tsan
SAN_cov := --coverage
SAN := $(foreach s,$(subst $(comma), ,$(D)),$(or $(SAN_$(s)),$(error D=$(s): not asan, ubsan, tsan or cov)))

# Recursive on purpose: pkg-config may be installed only after this file was read.
LIB_PACKAGES := liburing libzstd liblz4 libxxhash zlib
CONVERT_PACKAGES := $(LIB_PACKAGES) libprotobuf-c jansson nettle
SHARED_LIBS = $(shell $(PKG_CONFIG) --libs $(CONVERT_PACKAGES)) -pthread
LIB_LIBS = $(shell $(PKG_CONFIG) --libs $(LIB_PACKAGES)) -pthread
CLI_LIBS = $(SHARED_LIBS)
PROTO_INCLUDE = $(shell $(PKG_CONFIG) --variable=includedir protobuf)
UNIT_LIBS = $(CLI_LIBS) $(shell $(PKG_CONFIG) --libs cmocka)

WARN := -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror)
# Only what the public headers declare is visible outside of a shared library. Functions have
# sections of their own: the static one is one object, of which --gc-sections leaves what is used.
BASE_CFLAGS := -std=gnu11 -g -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections \
	       -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	       -DCKF_VERSION='"$(VERSION)"' -iquote . -iquote include -I$(P)
OPT := $(if $(SAN),-O1 -fno-omit-frame-pointer,-O2)
# Some compilers define _FORTIFY_SOURCE themselves. It needs optimization, and sanitizers miss the
# calls that it leads to checked variants.
FORTIFY := $(if $(SAN)$(filter -O0,$(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
HARDEN := -fstack-protector-strong $(FORTIFY)
HARDEN_LINK := -Wl,-z,relro,-z,now
PIE := -pie
ALL_CFLAGS = $(BASE_CFLAGS) $(OPT) $(HARDEN) $(WARN) $(SAN) $(CFLAGS)
ALL_LDFLAGS = $(HARDEN_LINK) $(LDFLAGS)
STRICT := -Wconversion

# libhsakmt: auto, yes or no. Only its headers are needed; it is loaded when AMD GPUs are used.
HSAKMT ?= auto
HSAKMT_ON := $(if $(filter auto,$(HSAKMT)),$(shell $(PKG_CONFIG) --exists libhsakmt && echo yes),$(filter yes,$(HSAKMT)))
AMD_ENGINE := $(addprefix gpu/amd/,engine.c hsakmt.c queue.c)
AMD_SRC := $(filter-out $(if $(HSAKMT_ON),gpu/amd/no_engine.c,$(AMD_ENGINE)),$(wildcard gpu/amd/*.c))

PARTS_SRC := $(wildcard base/*.c format/*.c loader/*.c gpu/suspend/*.c) $(AMD_SRC)
LIB_SRC := $(PARTS_SRC) $(wildcard gpu/cuda/*.c gpu/daemon/*.c)
CONVERT_SRC := $(wildcard convert/*.c)
EXAMPLE_SRC := $(wildcard examples/*.c)
CLI_SRC := $(wildcard cli/*.c)
AGENT_SRC := $(wildcard gpu/agent/*.c)
PROTO := $(wildcard proto/*.proto)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
# For the tests of ckfast doctor alone: it needs what the command is made of.
DOCTOR_WORLD := tests/unit/doctor_world.c
UNIT_HELPERS := $(filter-out $(UNIT_SRC) $(DOCTOR_WORLD),$(wildcard tests/unit/*.c))
FAULT_SRC := $(wildcard tests/fault/*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
PROG_SRC := $(wildcard tests/progs/*.c)
PRELOAD_SRC := $(wildcard tests/preload/*.c)
# The fake CUDA driver, and its two programs.
STUB_PROG_SRC := tests/stub/smi.c tests/stub/ckpt_main.c
STUB_SRC := $(filter-out $(STUB_PROG_SRC),$(wildcard tests/stub/*.c))

LIB_OBJ := $(LIB_SRC:%.c=$(B)/obj/%.o)
# What libckfast is made of.
PARTS_OBJ = $(PARTS_SRC:%.c=$(B)/obj/%.o) $(CONVERT_OBJ) $(PROTO_OBJ)
CONVERT_OBJ := $(CONVERT_SRC:%.c=$(B)/obj/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(B)/obj/%.o)
AGENT_OBJ := $(AGENT_SRC:%.c=$(B)/obj/%.o) $(B)/obj/gpu/agent/entry-asm.o \
	     $(if $(filter cov,$(D)),$(B)/obj/tests/cov/dump.o)
UNIT_HELPER_OBJ := $(UNIT_HELPERS:%.c=$(B)/obj/%.o)
DOCTOR_WORLD_OBJ := $(DOCTOR_WORLD:%.c=$(B)/obj/%.o)
# opts.proto imports descriptor.proto, whose C form no package holds.
PROTO_GOOGLE := $(if $(wildcard proto/opts.proto),google/protobuf/descriptor)
FAULT_OBJ := $(FAULT_SRC:%.c=$(B)/obj/%.o)
PROTO_C := $(PROTO:proto/%.proto=$(P)/%.pb-c.c) $(PROTO_GOOGLE:%=$(P)/%.pb-c.c)
PROTO_H := $(PROTO_C:.c=.h)
PROTO_OBJ := $(PROTO_C:$(P)/%.c=$(B)/obj/proto/%.o)

# With every symbol, for the command and the tests; for all others there are the two of libckfast.
LIB := $(B)/obj/internal.a
STATIC := $(B)/libckfast.a
SONAME := libckfast.so.0
SHARED := $(B)/$(SONAME)
PC := $(B)/pkgconfig/ckfast-uninstalled.pc
MAP := include/ckfast.map
HEADERS := $(addprefix include/,ckfast.h ckfast_needs.h ckfast_sink.h)
EXAMPLES := $(EXAMPLE_SRC:examples/%.c=$(B)/examples/%)
CKFAST := $(B)/bin/ckfast
AGENT := $(B)/lib/libckfast-cuda.so
UNIT := $(UNIT_SRC:tests/unit/%.c=$(B)/unit/%)
FAULT := $(if $(FAULT_SRC),$(B)/fault/fault)
PRELOAD := $(PRELOAD_SRC:tests/preload/%.c=build/progs/%.so)
PROGS := $(PROG_SRC:tests/progs/%.c=build/progs/%) build/progs/bare build/progs/cudaprog \
	 build/progs/gpudtest build/progs/amdcopy build/progs/stages $(PRELOAD)
STUB_OBJ := $(STUB_SRC:%.c=build/obj/%.o)
# The fake of AMD's driver: tests/stub/amd/README.md.
AMD_OBJ := $(addprefix build/obj/tests/stub/amd/,world.o kfd.o gem.o memory.o queue.o sdma.o drm.o)
STUB := $(addprefix build/stub/,libcuda.so.1 stub-smi cuapp cuapp-linked cushare cuanswers) \
	build/bin/cuda-checkpoint $(addprefix build/stub/,libamd.so amd-world rocmprog)
FUZZ := $(FUZZ_SRC:tests/fuzz/%.c=build/fuzz/%)
FUZZ_OBJ := $(patsubst %.c,build/fuzz/obj/%.o,$(LIB_SRC) $(CONVERT_SRC))

# Shows what is made, or with V=1 how.
Q := $(if $(V),,@)
say = $(if $(V),@:,@printf '  %-7s %s\n' $(1) $@)

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all lib unit progs stub fuzz-build deps criu check check-root check-all check-long check-build \
	check-root-build coverage demo bench bench-amd bench-field bench-podman bundle fuzz \
	zdtm zdtm-subset zdtm-build lint abi abi-save install install-library install-service install-completions uninstall \
	install-criu uninstall-criu deb rpm dist clean FORCE

all: lib $(CKFAST) $(AGENT) $(EXAMPLES)
lib: $(LIB) $(STATIC) $(SHARED) $(PC)
unit: $(UNIT) $(FAULT)
progs: $(PROGS)
stub: $(STUB)
fuzz-build: $(FUZZ)

# The flags of the last build: when they change, everything is compiled again.
FLAGS_NOW := $(CC) $(HSAKMT_ON) $(BASE_CFLAGS) $(OPT) $(HARDEN) $(WARN) $(STRICT) $(SAN) $(CFLAGS) $(ALL_LDFLAGS) $(PIE)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$(subst ",\",$(FLAGS_NOW))" | cmp -s - $@ || \
		printf '%s\n' "$(subst ",\",$(FLAGS_NOW))" > $@

$(addprefix $(B)/obj/,$(addsuffix /%.o,base format loader convert gpu cli)): WARN += $(STRICT)
$(B)/obj/gpu/amd/%.o: BASE_CFLAGS += $(if $(HSAKMT_ON),$(shell $(PKG_CONFIG) --cflags libhsakmt))
# Generated code is not ours to clean up.
$(B)/obj/proto/%.o: WARN := -w

$(B)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/gpu/agent/entry-asm.o: gpu/agent/entry.S $(B)/flags
	@mkdir -p $(@D)
	$(call say,AS)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/proto/%.o: $(P)/%.c $(B)/flags | $(PROTO_H)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(CONVERT_OBJ) $(CLI_OBJ) $(UNIT_HELPER_OBJ) $(DOCTOR_WORLD_OBJ) $(FAULT_OBJ): | $(PROTO_H)

$(P)/%.pb-c.c $(P)/%.pb-c.h &: proto/%.proto
	@mkdir -p $(P)
	$(call say,PROTO)
	$(Q)$(PROTOC_C) --proto_path=proto --proto_path=$(PROTO_INCLUDE) --c_out=$(P) $<

$(PROTO_GOOGLE:%=$(P)/%.pb-c.c) $(PROTO_GOOGLE:%=$(P)/%.pb-c.h) &:
	@mkdir -p $(P)
	$(call say,PROTO)
	$(Q)$(PROTOC_C) --proto_path=$(PROTO_INCLUDE) --c_out=$(P) $(PROTO_INCLUDE)/$(PROTO_GOOGLE).proto

$(LIB): $(LIB_OBJ)
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcsD $@ $^

# One object in which only the public names are global: what uses it may have functions of the same
# names as ours, and CRIU has the same generated code.
$(B)/obj/libckfast.o: $(PARTS_OBJ) $(MAP) $(B)/flags
	$(call say,LD)
	$(Q)sed -n 's/^[[:space:]]*\(ckf_[a-z0-9_]*\);$$/\1/p' $(MAP) > $(@:.o=.names)
	$(Q)$(LD) -r -o $@ $(filter %.o,$^)
	$(Q)$(OBJCOPY) --keep-global-symbols=$(@:.o=.names) $@

$(STATIC): $(B)/obj/libckfast.o
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcsD $@ $^

$(SHARED): $(PARTS_OBJ) $(MAP) $(B)/flags
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -Wl,-soname,$(SONAME) \
		-Wl,--version-script=$(MAP) \
		$(if $(SAN),,-Wl,-z,defs) -o $@ $(filter %.o,$^) $(SHARED_LIBS)
	@ln -sf $(SONAME) $(B)/libckfast.so

# As others build their programs, by pkg-config, which prefers the tree to an installed ckfast.
$(B)/examples/%: examples/%.c $(STATIC) $(PC)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) -std=c11 -D_DEFAULT_SOURCE -O2 $(WARN) $(SAN) -MMD -MP -o $@ $< \
		$$(PKG_CONFIG_PATH=$(B)/pkgconfig $(PKG_CONFIG) --cflags --libs ckfast)

# From the folder of $(PC) to the root.
PC_UP := $(if $(D),../)../..
PC_WORDS := -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@UP@|$(PC_UP)|' \
	    -e 's|@PACKAGES@|$(CONVERT_PACKAGES)|'
$(PC): include/ckfast-uninstalled.pc.in $(B)/flags
	@mkdir -p $(@D)
	$(Q)sed $(PC_WORDS) $< > $@

$(CKFAST): $(CLI_OBJ) $(CONVERT_OBJ) $(PROTO_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(PIE) -o $@ $^ $(CLI_LIBS)

# Preloaded into other people's programs: shows nothing but what it puts in front of the driver. Its
# dlsym() has to jump, also at -O1.
$(AGENT_OBJ): BASE_CFLAGS += -fvisibility=hidden -foptimize-sibling-calls
$(AGENT): $(AGENT_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -Wl,--exclude-libs,ALL -o $@ $^

$(B)/unit/%: tests/unit/%.c $(UNIT_HELPER_OBJ) $(CONVERT_OBJ) $(PROTO_OBJ) $(LIB) $(B)/flags
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $(UNIT_FLAGS) -MMD -MP -o $@ $< $(filter %.o,$^) $(filter %.a,$^) \
		$(UNIT_LIBS)

$(B)/unit/test_doctor $(B)/unit/test_doctor_image: $(DOCTOR_WORLD_OBJ)
$(B)/unit/test_doctor $(B)/unit/test_doctor_image $(B)/unit/test_rehearse: $(filter-out %/main.o,$(CLI_OBJ))
$(B)/unit/test_weak_hash: UNIT_FLAGS := -Wl,--wrap=ckf_hash64 -Wl,--wrap=ckf_sum_key
$(B)/unit/test_rehearse: UNIT_FLAGS := -Wl,--wrap=ckf_fill
$(B)/unit/test_amd_sink: UNIT_FLAGS = $(if $(HSAKMT_ON),$(shell $(PKG_CONFIG) --cflags libhsakmt) \
	-DHAVE_HSAKMT -Wl$(comma)--wrap=engines_queue)
$(B)/unit/test_cuda $(B)/unit/test_stub $(B)/unit/test_stub_ckpt: | build/stub/libcuda.so.1

# The calls that wrap.c has a wrapper for are led to it.
WRAPPED = $(shell $(CC) -E $(BASE_CFLAGS) tests/fault/wrap.c | grep -oE '\b__wrap_\w+' | \
	  sort -u | sed 's/__wrap_/-Wl,--wrap=/')
# So are those of libraries, where they are to be had as archives.
archive = $(or $(filter /%,$(shell $(CC) -print-file-name=$(1).a)),\
	  $(shell $(PKG_CONFIG) --libs $(1)))
FAULT_LIBS = $(foreach p,$(CONVERT_PACKAGES),$(call archive,$(p))) -pthread \
	     $(shell $(PKG_CONFIG) --libs cmocka)
$(B)/fault/fault: $(FAULT_OBJ) $(UNIT_HELPER_OBJ) $(CONVERT_OBJ) $(PROTO_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $(WRAPPED) -o $@ $^ $(FAULT_LIBS)

# Never with sanitizers: it is loaded into programs that have none.
build/obj/tests/stub/%.o: tests/stub/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE_CFLAGS) -O2 -fvisibility=hidden -ftls-model=initial-exec $(WARN) -MMD -MP -c \
		-o $@ $<

# -Bsymbolic: a library that is preloaded must not take the driver's own table of functions over.
build/stub/libcuda.so.1: $(STUB_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) -shared -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic -pthread -o $@ $^

# Preloaded, into programs and into CRIU.
build/stub/libamd.so: $(AMD_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) -shared -pthread -o $@ $^
build/stub/amd-world: build/obj/tests/stub/amd/make_world.o
build/stub/stub-smi: build/obj/tests/stub/smi.o build/obj/tests/stub/scan.o
build/bin/cuda-checkpoint: build/obj/tests/stub/ckpt_main.o
build/stub/stub-smi build/bin/cuda-checkpoint build/stub/amd-world:
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) -o $@ $^

# Programs of one file each, never with sanitizers.
$(PROG_SRC:tests/progs/%.c=build/progs/%): build/progs/%: tests/progs/%.c
build/progs/weights: PROG_FLAGS := -lm
build/progs/bare: tests/bench/bare.c
build/progs/bare: PROG_FLAGS := -luring
$(PRELOAD): build/progs/%.so: tests/preload/%.c
$(PRELOAD): PROG_FLAGS := -shared -fPIC -fvisibility=default
build/progs/cudaprog: tests/gpu/cudaprog.c
build/progs/gpudtest: tests/gpu/gpudtest.c build/obj/internal.a
build/progs/gpudtest: PROG_FLAGS = $(LIB_LIBS)
build/progs/amdcopy: tests/gpu/amdcopy.c build/obj/internal.a
build/progs/amdcopy: PROG_FLAGS = $(LIB_LIBS)
build/progs/stages: tests/bench/stages.c $(addprefix convert/,encode.c prefilter.c model.c calibrate.c \
		    decode_costs.c pack_writer.c worker.c) build/obj/internal.a
build/progs/stages: PROG_FLAGS = $(LIB_LIBS)
build/stub/cuapp build/stub/cuapp-linked: tests/stub/app/cuapp.c
build/stub/rocmprog: tests/stub/amd/rocmprog.c
build/stub/rocmprog: PROG_FLAGS := -lm
build/stub/cuanswers: tests/stub/app/cuanswers.c
build/stub/cuapp-linked build/stub/cuanswers: build/stub/libcuda.so.1
build/stub/cuapp-linked: PROG_FLAGS := -DLINKED
build/stub/cushare: tests/stub/app/cushare.c build/obj/internal.a
build/stub/cushare: PROG_FLAGS = $(LIB_LIBS)
$(PROGS) $(addprefix build/stub/,cuapp cuapp-linked cuanswers cushare rocmprog):
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE_CFLAGS) -O2 $(WARN) -MMD -MP -o $@ $(filter %.c %.a %.so.1,$^) $(PROG_FLAGS)

# Fuzz targets and the sources are compiled by the compiler that has the fuzzer.
FUZZ_FLAGS = $(BASE_CFLAGS) -O1 $(WARN) -fsanitize=address,undefined -fno-sanitize-recover=undefined
build/fuzz/obj/%.o: %.c build/flags | $(PROTO_H)
	@mkdir -p $(@D)
	$(call say,FUZZCC)
	$(Q)$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

build/fuzz/%: build/fuzz/obj/tests/fuzz/%.o $(FUZZ_OBJ) $(PROTO_OBJ)
	$(call say,FUZZ)
	$(Q)$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer $(FUZZ_WRAP) -o $@ $^ $(UNIT_LIBS)

# A driver of its own; a process that is dumped without being stopped.
build/fuzz/fuzz_gpud: FUZZ_WRAP := -Wl,--wrap=ckf_cuda_load
build/fuzz/fuzz_agent_lib: $(addprefix build/fuzz/obj/gpu/agent/,memory.o handles.o share.o ipc.o ipc_hooks.o)
build/fuzz/fuzz_agent_lib: FUZZ_WRAP := -Wl,--wrap=ckf_cuda_load
build/fuzz/fuzz_agent: FUZZ_WRAP := -Wl,--wrap=ptrace -Wl,--wrap=waitpid

deps:
	@scripts/deps.sh

criu: lib
	@scripts/criu-build.sh

# With all CPUs, unless -j says otherwise.
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

# What the tests without root want, and what the others want beside that.
check-build: all unit progs stub fuzz-build
check-root-build: all progs stub criu zdtm-build
	@$(MAKE) D=asan,ubsan all unit

check:
	@$(MAKE) $(PARALLEL) check-build
	@tests/run.sh --fast $(T)

check-root:
	@$(MAKE) $(PARALLEL) check-root-build
	@tests/run.sh --root $(T)

check-all: deps
	@$(MAKE) $(PARALLEL) check-build check-root-build
	@tests/run.sh $(T)

check-long: deps
	@$(MAKE) $(PARALLEL) check-build check-root-build
	@$(MAKE) $(PARALLEL) D=tsan all unit
	@scripts/criu-sanitized.sh
	@$(MAKE) deb
	@CKF_LONG=1 tests/run.sh $(T)

coverage:
	@$(MAKE) $(PARALLEL) all progs stub $(if $(filter 0,$(shell id -u)),criu)
	@$(MAKE) $(PARALLEL) D=cov all unit
	@scripts/coverage.sh

demo: deps
	@$(MAKE) $(PARALLEL) all progs criu
	@scripts/demo.sh

bench: deps
	@$(MAKE) $(PARALLEL) all progs criu
	@tests/bench/bench.sh
	@tests/bench/codecs.sh

# On a fake of AMD's driver, with a link of set speed: settings in tests/bench/amd.sh.
bench-amd: deps
	@$(MAKE) $(PARALLEL) all progs stub criu
	@tests/bench/amd.sh

bench-field: deps
	@$(MAKE) $(PARALLEL) all progs criu
	@tests/bench/field.sh

bench-podman: deps
	@$(MAKE) $(PARALLEL) all progs criu
	@/usr/bin/python3 -B tests/bench/podman.py

bundle: all progs stub criu
	@scripts/bundle.sh

fuzz: fuzz-build
	@for f in $(FUZZ); do \
		mkdir -p build/corpus/$${f##*/}; \
		echo "== $$f"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
			-artifact_prefix=build/corpus/$${f##*/}- build/corpus/$${f##*/} || exit 1; \
	done

# Where the suite cannot be built, its test says why.
zdtm-build: criu
	@tests/zdtm/build.sh subset || [ $$? = 77 ]

zdtm: deps
	@$(MAKE) $(PARALLEL) all criu
	@tests/zdtm/zdtm.sh full

zdtm-subset: deps
	@$(MAKE) $(PARALLEL) all criu
	@tests/zdtm/zdtm.sh subset

lint:
	@scripts/lint.sh

abi abi-save: $(SHARED)
	@scripts/abi.sh $(if $(filter abi-save,$@),save,check) $<

# The unit names the program that is installed beside it.
UNITS := ckfast-gpud.service ckfast-gpud.socket ckfast-watch.service
install-service:
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in $(UNITS); do sed 's|@BINDIR@|$(PREFIX)/bin|' scripts/$$unit \
		> $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; done

install: all install-service install-library install-completions
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(CKFAST) $(DESTDIR)$(PREFIX)/bin/ckfast
	install -d $(DESTDIR)$(AGENT_DIR)
	install -m 755 $(AGENT) $(DESTDIR)$(AGENT_DIR)/
	install -d $(DESTDIR)$(PREFIX)/lib/ckfast
	sed 's|@BINDIR@|$(PREFIX)/bin|' scripts/ckfast-convert-hook > $(DESTDIR)$(HOOK)
	chmod 755 $(DESTDIR)$(HOOK)
	install -m 644 docs/ckfast.1 $(DESTDIR)$(PREFIX)/share/man/man1/ckfast.1

install-library: lib
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 $(HEADERS) $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(STATIC) $(DESTDIR)$(LIBDIR)/
	install -m 755 $(SHARED) $(DESTDIR)$(LIBDIR)/
	ln -sfn $(SONAME) $(DESTDIR)$(LIBDIR)/libckfast.so
	sed $(PC_WORDS) include/ckfast.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/ckfast.pc

install-completions:
	install -m 644 -D completions/ckfast.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/ckfast
	install -m 644 -D completions/_ckfast $(DESTDIR)$(ZSH_COMPLETIONS)/_ckfast
	install -m 644 -D completions/ckfast.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ckfast.fish

# Folders that an install may have made for our files alone, where nothing else is in them.
remove_empty = for d in $(addprefix $(DESTDIR),$(1)); do \
		[ ! -d $$d ] || rmdir --ignore-fail-on-non-empty $$d; done

# With the settings of the install: PREFIX, DESTDIR and the others.
INSTALLED = $(addprefix $(PREFIX)/,bin/ckfast share/man/man1/ckfast.1 $(HEADERS) \
	    $(addprefix lib/systemd/system/,$(UNITS)) \
	    share/bash-completion/completions/ckfast share/fish/vendor_completions.d/ckfast.fish) \
	    $(addprefix $(LIBDIR)/,libckfast.a $(SONAME) libckfast.so pkgconfig/ckfast.pc) \
	    $(ZSH_COMPLETIONS)/_ckfast $(AGENT_DIR)/$(notdir $(AGENT)) $(HOOK)
uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	$(call remove_empty,$(AGENT_DIR) $(PREFIX)/lib/ckfast)

install-criu: criu
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) PLUGIN_DIR=$(PLUGIN_DIR) scripts/criu-install.sh

INSTALLED_CRIU = $(addprefix $(PREFIX)/,sbin/criu sbin/criu-ns bin/crit libexec/criu/scripts/systemd-autofs-restart.sh \
		 share/man/man8/criu.8 share/man/man1/crit.1 share/man/man1/criu-ns.1 \
		 lib/ckfast/criu-stock/cuda_plugin.so) $(PLUGIN_DIR)/ckfast_cuda_plugin.so
uninstall-criu:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED_CRIU))
	rm -rf $(DESTDIR)$(PREFIX)/lib/ckfast/python
	$(call remove_empty,$(PLUGIN_DIR) $(addprefix $(PREFIX)/,lib/ckfast/criu-stock lib/ckfast libexec/criu/scripts libexec/criu))

deb:
	@scripts/deb-build.sh source
	@scripts/deps.sh packages
	@scripts/deb-build.sh

rpm:
	@scripts/deps.sh packages
	@scripts/rpm-build.sh

dist:
	@mkdir -p build
	git archive --format=tar --prefix=ckfast-$(VERSION)/ HEAD | gzip -9n > build/ckfast-$(VERSION).tar.gz
	@echo build/ckfast-$(VERSION).tar.gz

clean:
	rm -rf build

-include $(AGENT_OBJ:.o=.d) $(LIB_OBJ:.o=.d) $(CONVERT_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(UNIT_HELPER_OBJ:.o=.d) $(DOCTOR_WORLD_OBJ:.o=.d) \
	 $(FAULT_OBJ:.o=.d) \
	 $(PROTO_OBJ:.o=.d) $(UNIT:=.d) $(PROGS:=.d) $(STUB_OBJ:.o=.d) $(AMD_OBJ:.o=.d) build/obj/tests/stub/amd/make_world.d \
	 $(STUB:=.d) $(EXAMPLES:=.d) $(FUZZ_OBJ:.o=.d) $(FUZZ_SRC:%.c=build/fuzz/obj/%.d)
