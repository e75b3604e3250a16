/* SPDX-License-Identifier: MIT */
/*
 * Whether this CPU has what the CPU of the dump had: programs ask once, at their start, and never
 * again. Only what programs can use counts, not what kernels do.
 */
#include <stdio.h>
#include <string.h>

#include "doctor.h"

#define CPUINFO_BYTES 16384 /* the first CPU's part */
#define FLAGS_BYTES 8192

/*
 * Names as in /proc/cpuinfo; word and bit as in CRIU's images, which is as in compel's
 * uapi/asm/cpu.h. Words 11, 12 and 16 are not those of Linux' cpufeatures.h: CRIU's word 11 is
 * Linux' word 16.
 */
static const struct {
	const char *name;
	uint8_t word;
	uint8_t bit;
} features[] = {
	{ "cmov", 0, 15 },
	{ "mmx", 0, 23 },
	{ "fxsr", 0, 24 },
	{ "sse", 0, 25 },
	{ "sse2", 0, 26 },
	{ "pni", 4, 0 },
	{ "pclmulqdq", 4, 1 },
	{ "ssse3", 4, 9 },
	{ "fma", 4, 12 },
	{ "cx16", 4, 13 },
	{ "sse4_1", 4, 19 },
	{ "sse4_2", 4, 20 },
	{ "movbe", 4, 22 },
	{ "popcnt", 4, 23 },
	{ "aes", 4, 25 },
	{ "xsave", 4, 26 },
	{ "avx", 4, 28 },
	{ "f16c", 4, 29 },
	{ "rdrand", 4, 30 },
	{ "lahf_lm", 6, 0 },
	{ "abm", 6, 5 },
	{ "sse4a", 6, 6 },
	{ "xop", 6, 11 },
	{ "fma4", 6, 16 },
	{ "tbm", 6, 21 },
	{ "fsgsbase", 9, 0 },
	{ "bmi1", 9, 3 },
	{ "avx2", 9, 5 },
	{ "bmi2", 9, 8 },
	{ "erms", 9, 9 },
	{ "rtm", 9, 11 },
	{ "avx512f", 9, 16 },
	{ "avx512dq", 9, 17 },
	{ "rdseed", 9, 18 },
	{ "adx", 9, 19 },
	{ "avx512ifma", 9, 21 },
	{ "clflushopt", 9, 23 },
	{ "clwb", 9, 24 },
	{ "avx512cd", 9, 28 },
	{ "sha_ni", 9, 29 },
	{ "avx512bw", 9, 30 },
	{ "avx512vl", 9, 31 },
	{ "avx512vbmi", 11, 1 },
	{ "pku", 11, 3 },
	{ "avx512_vbmi2", 11, 6 },
	{ "gfni", 11, 8 },
	{ "vaes", 11, 9 },
	{ "vpclmulqdq", 11, 10 },
	{ "avx512_vnni", 11, 11 },
	{ "avx512_bitalg", 11, 12 },
	{ "avx512_vpopcntdq", 11, 14 },
	{ "rdpid", 11, 22 },
	{ "amx_bf16", 18, 22 },
	{ "avx512_fp16", 18, 23 },
	{ "amx_tile", 18, 24 },
	{ "amx_int8", 18, 25 },
};

/* State that registers of a thread are saved in: bits of XCR0, and what they come with. */
static const struct {
	uint8_t bit;
	const char *name;
} states[] = {
	{ 2, "avx" },	  { 3, "mpx" },	  { 4, "mpx" },	      { 5, "avx512f" },	  { 6, "avx512f" },
	{ 7, "avx512f" }, { 9, "ospke" }, { 17, "amx_tile" }, { 18, "amx_tile" },
};

static bool has_flag(const char *flags, const char *name)
{
	const size_t len = strlen(name);

	for (const char *p = flags; (p = strstr(p, name)); p += len)
		if ((p == flags || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
	return false;
}

/* Adds a name to a list, once. */
static void note_missing(char *list, size_t bytes, const char *name)
{
	size_t len = strlen(list);

	if (!has_flag(list, name))
		snprintf(list + len, bytes - len, "%s%s", len ? " " : "", name);
}

static void compare(const char *flags, const struct ckf_cpu_need *cpu, char *list, size_t bytes)
{
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		if (features[i].word < cpu->nr_words &&
		    cpu->words[features[i].word] >> features[i].bit & 1 &&
		    !has_flag(flags, features[i].name))
			note_missing(list, bytes, features[i].name);
}

void doctor_check_cpu(struct doctor *d, const struct ckf_needs *n,
		      const struct ckf_needs_info *info)
{
	char text[CPUINFO_BYTES], flags[FLAGS_BYTES], missing[256] = "", unsaved[64] = "";
	struct ckf_cpu_need cpu = { .size = sizeof(cpu) };
	json_t *facts;

	if (!doctor_read(d, "/proc/cpuinfo", text, sizeof(text)) ||
	    !doctor_field(text, "flags", flags, sizeof(flags))) {
		doctor_add(d, "cpu", DOCTOR_DEGRADED,
			   "whether programs find what they use is not known",
			   "/proc/cpuinfo cannot be read");
		return;
	}
	for (uint64_t i = 0; i < info->nr_cpus && !ckf_needs_get_cpu(n, i, &cpu); i++)
		compare(flags, &cpu, missing, sizeof(missing));
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (info->xstate >> states[i].bit & 1 && !has_flag(flags, states[i].name))
			note_missing(unsaved, sizeof(unsaved), states[i].name);
	if (*unsaved)
		facts = doctor_add(d, "cpu", DOCTOR_BROKEN,
				   "restore on a machine like that of the dump",
				   "lacks the registers of %s, which are in use", unsaved);
	else if (*missing)
		facts = doctor_add(
			d, "cpu", DOCTOR_BROKEN,
			"programs that use them crash: restore on a machine like that of "
			"the dump",
			"that of the dump%s%s has what this one lacks: %s", *cpu.name ? ", " : "",
			cpu.name, missing);
	else
		facts = doctor_add(d, "cpu", DOCTOR_OK, NULL,
				   info->nr_cpus ? "has all that the CPU of the dump has"
						 : "has the registers in use; of the dump's CPU no "
						   "more is known");
	json_object_set_new(facts, "missing", cli_json_string(*unsaved ? unsaved : missing));
}
